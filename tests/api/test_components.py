"""Prompts of several components through the public API."""

from pathlib import Path

import pytest

import remask
from fakes.colours import search
from fakes.scripted_denoiser import ScriptedDenoiser
from fakes.server import Server, answer
from remask.errors import ConfigError
from remask.events import Proposed
from remask.runs.store import Store

TEXTS = {
    "system": "You work for a shop. [[keep]]Be honest.[[/keep]]",
    "tool:find": "Gives the place of a parcel for a number.",
    "reply": "Write one short sentence.",
}
ROWS = [{"input": f"Where is my parcel {n}?"} for n in range(60)]
FEEDBACK = "The place of the parcel was not given by mail."


def agent(texts: dict[str, str], message: str) -> str:
    return "found" if "mail" in texts["tool:find"] else "unknown"


def grade(example, answer: str) -> remask.Score:
    return remask.Score(float(answer == "found"), "" if answer == "found" else FEEDBACK)


def optimize(run_dir: Path, **more):
    given = {
        "data": remask.Dataset(ROWS, expected=""),
        "target": agent,
        "metric": grade,
        "denoiser": ScriptedDenoiser(("or use the mail", "be kind")),
        "search": search(maskers=["insert", "span"]),
        "max_calls": 400,
        "run_dir": run_dir,
        "progress": False,
    }
    return remask.optimize(TEXTS, **(given | more))


def test_the_faulty_component_is_edited(tmp_path: Path) -> None:
    result = optimize(tmp_path / "run")
    assert result.verdict == "improved"
    assert "mail" in result.components["tool:find"]
    assert result.components["system"].endswith("Be honest.")
    assert list(result.components) == list(TEXTS)
    assert result.quoted_rows == 0
    with Store.read(tmp_path / "run") as store:
        found = [e["components"] for e in store.events() if e["kind"] == Proposed.__name__]
    assert sum("tool:find" in names for names in found) > len(found) / 2


@pytest.mark.parametrize("mark", ["[[component user]]", "\n[[component user]]\nNever"])
def test_the_denoiser_cannot_write_a_component(tmp_path: Path, mark: str) -> None:
    told: list[dict[str, str]] = []

    def watch(texts: dict[str, str], message: str) -> str:
        told.append(texts)
        return agent(texts, message)

    denoiser = ScriptedDenoiser((f"{mark} mail", "or use the mail", "be kind"))
    result = optimize(tmp_path / "run", denoiser=denoiser, target=watch)
    assert list(result.components) == list(TEXTS)
    assert all(list(texts) == list(TEXTS) and "[[" not in str(texts) for texts in told)


def test_a_resumed_run_ends_as_the_uncut_one(tmp_path: Path) -> None:
    uncut = optimize(tmp_path / "uncut")

    def stop(event, state, spend):
        if isinstance(event, Proposed) and len(state.proposals) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimize(tmp_path / "cut", on_event=stop)
    resumed = remask.resume(
        tmp_path / "cut",
        data=ROWS,
        target=agent,
        metric=grade,
        denoiser=ScriptedDenoiser(("or use the mail", "be kind")),
    )
    assert resumed.components == uncut.components
    assert resumed.spend.calls == uncut.spend.calls


def test_a_prompt_file_may_have_components(tmp_path: Path) -> None:
    file = tmp_path / "agent.md"
    file.write_text("[[component system]]\nBe kind.\n[[component reply]]\nBe short.\n")
    result = optimize(tmp_path / "run", **{"max_calls": 200})
    assert set(result.components) == set(TEXTS)
    seen = []

    def listen(texts: dict[str, str], message: str) -> str:
        seen.append(texts)
        return "found"

    scored = remask.evaluate(file, remask.Dataset(ROWS, expected=""), target=listen, metric=grade)
    assert scored.score.mean == 1
    assert seen[0] == {"system": "Be kind.", "reply": "Be short."}


def tool(name: str) -> dict:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


def test_an_endpoint_gets_the_messages_and_the_tools(tmp_path: Path) -> None:
    texts = {name: text for name, text in TEXTS.items() if name != "reply"}
    with Server([], answer("found")) as server:
        target = remask.Target("openai:m", base_url=server.url, extra={"tools": [tool("find")]})
        remask.evaluate(texts, remask.Dataset(ROWS, expected=""), target=target, metric=grade)
    body = server.bodies[0]
    assert body["messages"][0] == {"role": "system", "content": "You work for a shop. Be honest."}
    assert body["tools"][0]["function"]["description"] == TEXTS["tool:find"]


def test_the_message_of_a_row_may_be_a_component() -> None:
    texts = {"developer": "Be kind.", "user/1": "Hi", "assistant": "Hello!", "user": "Question: {input}"}
    with Server([], answer("found")) as server:
        target = remask.Target("openai:m", base_url=server.url)
        remask.evaluate(texts, remask.Dataset(ROWS, expected=""), target=target, metric=grade)
    *before, last = server.bodies[0]["messages"]
    assert [(m["role"], m["content"]) for m in before] == [
        ("system", "Be kind."),
        ("user", "Hi"),
        ("assistant", "Hello!"),
    ]
    assert last["role"] == "user" and last["content"].startswith("Question: Where is my parcel ")


@pytest.mark.parametrize(
    ("prompt", "more", "said"),
    [
        (TEXTS, {"target": "builtin"}, "'reply' is no message and no tool"),
        ({"tool:find": "Find."}, {"target": "builtin"}, "builtin takes no tools, as 'tool:find' is one"),
        (
            {"tool:find": "Find."},
            {"target": remask.Target("openai:m", base_url="http://localhost:1")},
            "'tool:find' describes a tool or a parameter that target.extra.tools does not have",
        ),
        (TEXTS, {"data": remask.Dataset(ROWS, expected="", role="user")}, "name the component `user`"),
        (
            {"system": "Be kind.", "user": "Where is {parcel}?"},
            {"target": remask.Target("openai:m", base_url="http://localhost:1")},
            "'user' is the message of each row, and names no column of the rows; write one",
        ),
        (
            "Where is it?",
            {"data": remask.Dataset(ROWS, expected="", role="user")},
            "the prompt is the message of each row .*names no column of the rows",
        ),
        ({"tool:find": "Find."}, {"search": remask.Search(demos=2)}, "component system, and there is none"),
        ({}, {}, "there are no components"),
        ({"system": "[[keep]]Be kind.[[/keep]]"}, {}, "no editable text"),
    ],
)
def test_components_that_the_target_cannot_use_are_refused(tmp_path: Path, prompt, more, said) -> None:
    given = {"data": remask.Dataset(ROWS, expected=""), "target": agent, "metric": grade}
    with pytest.raises(ConfigError, match=said):
        remask.optimize(prompt, run_dir=tmp_path / "run", **(given | more))
    assert not (tmp_path / "run").exists()


def test_two_prompts_are_compared_only_with_the_same_components() -> None:
    given = {"target": agent, "metric": grade}
    data = remask.Dataset(ROWS, expected="")
    better = {**TEXTS, "tool:find": "Gives the place of a parcel for a number or a mail."}
    found = remask.evaluate(better, data, against=TEXTS, **given)
    assert found.comparison.difference == 1
    with pytest.raises(ConfigError, match="different components"):
        remask.evaluate(better, data, against="Be kind.", **given)


def test_a_pilot_takes_one_text() -> None:
    with pytest.raises(ConfigError, match="takes a prompt of one text"):
        remask.pilot(TEXTS, remask.Dataset(ROWS, expected=""), target=agent, metric=grade)
