"""benchmarks/paper: rows of the hub, runs through the public API, the server of a local agent."""

import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.paper import page
from benchmarks.paper.__main__ import list_experiments, main, read_arguments
from benchmarks.paper.data import SOURCES, choose_task, convert_rows, draw_rows, fetch_task, split_rows
from benchmarks.paper.experiment import Experiment, make_target, read_settings
from benchmarks.paper.serve import LocalServer, parse_answer, render_chat
from fakes.scripted_target import ScriptedTarget
from fakes.server import Server, completion
from remask.types import Chat

Rows = list[dict[str, Any]]
NAMES = {
    "sst2": ["negative", "positive"],
    "snli": ["entailment", "neutral", "contradiction"],
    "mrpc": ["not_equivalent", "equivalent"],
}


class HubRows(list[dict[str, Any]]):
    """Rows in the form of a split of the hub: `features` has the names of the labels."""

    def __init__(self, rows: Rows, names: Sequence[str] | None) -> None:
        super().__init__(rows)
        self.features = {"label": SimpleNamespace(names=list(names)) if names else SimpleNamespace()}


def make_hub(name: str, count: int = 60) -> dict[str, HubRows]:
    """The splits of a task as the hub has them; the test splits of GLUE have no labels."""
    source, labels = SOURCES[name], choose_task(name, own_words=False).labels

    def make_row(split: str, n: int) -> dict[str, Any]:
        secret = source.hub_id.endswith("glue") and split == "test"
        number = -1 if secret else n % len(labels)
        words = {"label_text": labels[number]} if name == "sst5" else {}
        texts = {column: f" {split} {column} {n} " for column in source.columns}
        return {**texts, "idx": n, "label": number, **words}

    splits = ("train", "validation", "test")
    return {s: HubRows([make_row(s, n) for n in range(count)], NAMES.get(name)) for s in splits}


def load_hub(name: str) -> Callable[..., dict[str, HubRows]]:
    return lambda hub_id, config="": make_hub(name)


# -- data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SOURCES))
def test_fetched_rows_have_the_layout_that_runs_read(name: str, tmp_path: Path) -> None:
    counts = fetch_task(name, tmp_path, load_hub(name))
    bench = choose_task(name, own_words=True)
    drawn = draw_rows(bench, tmp_path, {"train": 5, "validation": 5, "test": 1000}, seed=0)
    assert [len(rows) for rows in drawn.values()] == [5, 5, counts["test"]]
    rows = [row for split in drawn.values() for row in split]
    assert {row["label"] for row in drawn["test"]} == set(bench.labels)
    assert all(set(re.findall(r"{(\w+)}", bench.input)) == set(row) - {"label"} for row in rows)


@pytest.mark.parametrize(
    ("name", "split"), [("sst2", "validation"), ("mrpc", "validation"), ("snli", "test"), ("sst5", "test")]
)
def test_test_rows_are_those_that_have_labels(name: str, split: str, tmp_path: Path) -> None:
    fetch_task(name, tmp_path, load_hub(name))
    texts = [(tmp_path / name / f"{part}.jsonl").read_text() for part in ("train", "validation", "test")]
    assert [text.count("\n") for text in texts] == ([48, 12, 60] if split == "validation" else [60, 60, 60])
    assert all(next(iter(json.loads(line).values())).startswith(split) for line in texts[2].splitlines())


def test_a_row_without_a_label_is_left_out() -> None:
    rows = HubRows([{"premise": "a", "hypothesis": "b", "label": n} for n in (-1, 2)], NAMES["snli"])
    assert convert_rows("snli", rows) == [{"premise": "a", "hypothesis": "b", "label": "contradiction"}]


def test_other_labels_on_the_hub_are_refused() -> None:
    turned = HubRows([{"sentence": "a", "label": 0}], ["positive", "negative"])
    with pytest.raises(SystemExit, match=r"nyu-mll/glue: its labels are \['positive', 'negative'\]"):
        convert_rows("sst2", turned)
    with pytest.raises(SystemExit, match="label 0 is 'very positive', and not 'very negative'"):
        convert_rows("sst5", [{"text": "a", "label": 0, "label_text": "very positive"}])
    with pytest.raises(SystemExit, match="a row has the label 5, of 5 labels"):
        convert_rows("sst5", [{"text": "a", "label": 5}])


def test_no_text_is_in_two_splits() -> None:
    row = {"premise": "a", "hypothesis": "b", "label": "neutral"}
    first, second, third = ({**row, "premise": f"a{n}"} for n in range(3))
    found = {"train": [row, first, third, third], "validation": [row, second, first], "test": [row]}
    assert split_rows("snli", found) == {"train": [third], "validation": [second, first], "test": [row]}
    with pytest.raises(SystemExit, match="no labelled rows are left for train"):
        split_rows("snli", {**found, "train": [row]})


def test_a_missing_library_and_network_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SystemExit, match="run: pip install datasets"):
        main(["--fetch", "--data", str(tmp_path), "--task", "sst5"])

    def fail(*_: str) -> dict[str, Any]:
        raise ConnectionError("Couldn't reach\nthe hub")

    with pytest.raises(
        SystemExit, match=r"SetFit/sst5 cannot be fetched from the hub \(Couldn't reach the hub\)"
    ):
        fetch_task("sst5", tmp_path, fail)
    assert not list(tmp_path.iterdir())


def test_seeds_draw_other_rows_to_search_on_and_the_same_to_test(tmp_path: Path) -> None:
    fetch_task("sst2", tmp_path, load_hub("sst2"))
    counts = {"train": 10, "validation": 6, "test": 20}
    first, other = (draw_rows(choose_task("sst2", False), tmp_path, counts, seed) for seed in (0, 1))
    assert first["test"] == other["test"] and first["train"] != other["train"]
    (tmp_path / "sst2" / "test.jsonl").write_text('{"input": "a", "label": "good"}\n')
    with pytest.raises(SystemExit, match="test rows have unknown labels: good"):
        draw_rows(choose_task("sst2", False), tmp_path, counts, 0)


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "name the experiment with --task"),
        ("--task sst3", "invalid choice: 'sst3'"),
        ("--task sst2", "--data is needed"),
        ("--fetch", "--fetch needs --data"),
        ("--fetch --data x --task tau2_airline", "have no rows to fetch"),
        ("--task tau2_airline --test 5", "are not for τ²"),
        ("--task tau2_airline --own-words", "--own-words is not for τ²"),
        ("--task sst2 --data x --message-limit 8", "are for the τ² tasks"),
        ("--task sst2 --data x --steps 0", "'0' is no list of numbers above 0, such as 1,4,8,16,32"),
        ("--task sst2 --data x --steps 1,two", "'1,two' is no list of numbers"),
        ("--task sst2 --data /no/where", "error: /no/where/sst2/train.jsonl: there is no such file"),
        ("--task sst2 --data x --prompt no.md", "no.md: there is no such prompt file"),
        ("--task sst2 --data x --steps 4 --denoiser mercury", "an API has no number of denoising steps"),
        ("--task sst2 --data x --steps 4 --denoiser inspect:a/b", "an API has no number of denoising steps"),
        ("--task sst2 --data x --train 0", "must be at least 1"),
    ],
)
def test_wrong_arguments_end_with_exit_code_2(
    words: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words.split())
    assert stopped.value.code == 2 and sentence in capsys.readouterr().err


@pytest.mark.parametrize("line", [b"5\n", b"{\n", b'{"input": "\xff"}\n', b'{"label": "positive"}\n', b""])
def test_rows_that_cannot_be_read_end_with_exit_code_2(
    line: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch_task("sst2", tmp_path, load_hub("sst2"))
    (tmp_path / "sst2" / "test.jsonl").write_bytes(line)
    with pytest.raises(SystemExit) as stopped:
        main(["--data", str(tmp_path), "--runs", str(tmp_path / "runs"), "--task", "sst2"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1


def test_an_unknown_model_or_key_ends_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch_task("sst2", tmp_path, load_hub("sst2"))
    common = ["--data", str(tmp_path), "--runs", str(tmp_path / "runs"), "--task", "sst2"]
    for words, sentence in (
        (["--target", "nothing:x"], "target 'nothing:x' is unknown"),
        (["--target-set", "colour=1"], "colour"),
        (["--target-set", "colour"], "'colour' is no setting; write KEY=VALUE"),
        (["--denoiser", "lama"], "use builtin, builtin:ADAPTER"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([*common, *words])
        assert stopped.value.code == 2 and sentence in capsys.readouterr().err


def test_each_number_of_steps_is_a_run_with_the_same_seed(tmp_path: Path) -> None:
    args = read_arguments(["--task", "sst5", "--data", str(tmp_path), "--steps", "16,1,4", "--seeds", "3"])
    found = list(list_experiments(args))
    assert [(one.steps, one.seed) for one in found] == [(1, 3), (4, 3), (16, 3)]
    assert len({one.name for one in found}) == 3


def test_a_local_target_chooses_unless_it_is_to_use_its_own_words() -> None:
    chosen = Experiment("sst5", "builtin", "builtin", calls=100, seed=0)
    assert make_target(chosen).choose
    written = make_target(Experiment("sst5", "builtin", "builtin", calls=100, seed=0, own_words=True))
    assert not written.choose and written.max_tokens == 12
    assert Experiment("sst5", "local:/a/m.gguf", "builtin", 100, 0).name == (
        Experiment("sst5", "local:/b/m.gguf", "builtin", 100, 0).name
    )
    assert read_settings(["temperature=omit", "timeout=3.5"]) == {"temperature": "omit", "timeout": 3.5}


# -- a run ----------------------------------------------------------------------------------------

TARGET = """
from pathlib import Path

def respond(messages):
    asked = Path(__file__).with_name("asked")
    count = len(asked.read_text()) if asked.exists() else 0
    stop = Path(__file__).with_name("stop")
    if stop.exists() and count >= int(stop.read_text()):
        raise KeyboardInterrupt
    asked.write_text("." * (count + 1))
    good = int(messages[-1]["content"].split()[-1]) % 2
    helped = "one word" in messages[0]["content"]
    return ("positive" if good else "negative") if helped else "I cannot say."
"""


def write_blanks(handler: Any, body: dict[str, Any]) -> None:
    """A chat model that fills every blank with the same words."""
    blanks = set(re.findall(r"\[\[(\d+)\]\] about", body["messages"][-1]["content"]))
    said = json.dumps({n: "Answer with one word." for n in blanks})
    handler.send(200, json.dumps(completion(said)).encode())


def test_a_run_that_was_cut_continues_and_its_test_is_scored_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch_task("sst2", tmp_path, load_hub("sst2"))
    (tmp_path / "target.py").write_text(TARGET)
    stop, out = tmp_path / "stop", tmp_path / "paper.json"
    stop.write_text("40")
    with Server(default=write_blanks) as server:
        command = [
            *("--data", str(tmp_path), "--task", "sst2", "--target", f"{tmp_path / 'target.py'}:respond"),
            *("--denoiser", "chat:writer", "--denoiser-set", f"base_url={server.url}", "--calls", "400"),
            *("--train", "16", "--validation", "12", "--test", "40", "--runs", str(tmp_path / "runs")),
            *("--out", str(out)),
        ]
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 130 and not out.exists()
        assert "the same command continues the run" in capsys.readouterr().err
        stop.unlink()
        main(command)
        said, calls = capsys.readouterr().out, len((tmp_path / "asked").read_text())
        main(command)
    assert len((tmp_path / "asked").read_text()) == calls, "a finished run asks nothing"
    (run,) = json.loads(out.read_text())["runs"]
    assert (run["verdict"], run["before"]["mean"], run["after"]["mean"]) == ("improved", 0.0, 1.0)
    assert run["after"]["n"] == 40 and run["rows"] == [16, 12, 40] and run["own_words"]
    assert "the paper, GPT-4o-mini   97.0" in said and "100.0   95 % interval 91.2 to 100.0, n = 40" in said
    assert str(tmp_path) not in out.read_text(), "no folder of this machine is recorded"


def test_the_page_shows_runs_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score = {"n": 10, "mean": 0.5, "low": 0.2, "high": 0.8}
    common = {
        "own_words": True,
        "steps": None,
        "edits": 1,
        "examples": 0,
        "seed": 0,
        "calls": 400,
        "message_limit": 8,
        "spent": 4,
    }
    ran = {
        "difference": 0.1,
        "low": -0.1,
        "high": 0.3,
        "level": 0.975,
        "verdict": "no evidence",
        "changed": True,
    }
    runs = [
        {"task": "sst2", "target": "builtin", "denoiser": "builtin", "before": score, "after": score}
        | common
        | ran,
        {"task": "tau2_retail", "target": "inspect:a/b", "denoiser": "builtin", "before": score} | common,
    ]
    figures, copy = tmp_path / "paper.json", tmp_path / "paper.md"
    figures.write_text(json.dumps({"runs": runs}))
    copy.write_text("<!-- paper_runs:begin -->\n<!-- paper_runs:end -->")
    monkeypatch.setattr(page, "FIGURES", figures)
    monkeypatch.setattr(page, "PAGE", copy)
    main(["--page"])
    text = copy.read_text()
    assert (
        "| SST-2 | 97 | builtin, own words | builtin | default | 0 | 400 | 10 | 50.0 (20.0 to 80.0) |" in text
    )
    assert "+10.0 (97.5 % interval -10.0 to +30.0) | no evidence | 1 | 0 |" in text
    assert "| τ²-bench, retail | 46 | inspect:a/b | 8 | 10 | 50.0 (20.0 to 80.0) | 4 | not counted |" in text


# -- a local model as agent -----------------------------------------------------------------------

TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
SAID = '<tool_call>\n{"name": "look_up", "arguments": {"id": 7}}\n</tool_call>'


def test_tools_and_their_calls_stand_in_the_text() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": '{"id": 7}'}}
    chat = render_chat(
        [
            {"role": "system", "content": "Help."},
            {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "found"},
            {"role": "user", "content": "And?"},
        ],
        TOOLS,
    )
    assert [turn.role for turn in chat] == ["system", "user", "assistant", "user"]
    assert chat[0].content.startswith("Help.\n") and json.dumps(TOOLS[0]) in chat[0].content
    assert chat[2].content == SAID
    assert chat[3].content == "<tool_response>\nfound\n</tool_response>\nAnd?"
    assert render_chat([{"role": "user", "content": "Hi"}], TOOLS)[0].role == "system"
    assert len(render_chat([{"role": "user", "content": "Hi"}], [])) == 1


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (SAID, ["look_up"]),
        (f"Let me see.\n{SAID}\n{SAID}", ["look_up", "look_up"]),
        (SAID.removesuffix("</tool_call>"), ["look_up"]),
        ('```json\n{"name": "look_up", "arguments": {}}\n```', ["look_up"]),
        ('```json\n{"function": "look_up", "arguments": {"id": 7}}\n```', ["look_up"]),
        ("[1, 2]", []),
        ('{"name": "Ann", "arguments": {}}', []),  # bare JSON that names no tool
        (
            '<tool_call>{"name": "other", "arguments": {}}</tool_call>',
            ["other"],
        ),  # Inspect says it is unknown
        ("<tool_call>{broken}</tool_call>", []),
        ("I can help.", []),
    ],
)
def test_calls_of_tools_are_read_from_an_answer(text: str, calls: list[str]) -> None:
    message = parse_answer(text, TOOLS)
    assert [call["function"]["name"] for call in message.get("tool_calls", [])] == calls
    assert calls or message["content"] == text
    assert "tool_calls" not in parse_answer(text, [])


def test_a_local_target_is_served(tmp_path: Path) -> None:
    def answer(chat: Chat) -> str:
        return SAID if "look_up" in chat[0].content else "Hello."

    with LocalServer(ScriptedTarget(answer, fail=lambda chat: "too long" if len(chat) > 3 else "")) as server:

        def ask(messages: int, **more: Any) -> Any:
            turns = [{"role": ("user", "assistant")[n % 2], "content": "Hi"} for n in range(messages)]
            body = json.dumps({"model": "m", "messages": turns, **more}).encode()
            request = urllib.request.Request(f"{server.url}/chat/completions", body)
            return json.loads(urllib.request.urlopen(request).read())

        assert ask(1)["choices"][0]["message"] == {"role": "assistant", "content": "Hello."}
        choice = ask(1, tools=TOOLS)["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"id": 7}'
        with pytest.raises(urllib.error.HTTPError, match="400"):
            ask(5)
        assert (server.requests, server.calls) == (3, 1)


def test_an_agent_that_calls_tools_for_ever_ends() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    pair = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "nothing"},
    ]
    server = LocalServer(ScriptedTarget(lambda chat: SAID))
    for pairs, called in ((7, True), (8, False)):
        messages = [{"role": "user", "content": "Hi"}, *pair * pairs]
        _, body = server.answer({"model": "m", "messages": messages, "tools": TOOLS})
        assert ("tool_calls" in body["choices"][0]["message"]) is called
    server.close()


# -- τ² with a scripted agent ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("domain", ["airline", "retail"])
def test_a_scripted_agent_of_tau2_is_optimised(
    domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real environments and scorers. The agent goes wrong unless its policy has a certain sentence,
    which the scripted denoiser writes; so the protocol is tested, and not the quality."""
    pytest.importorskip("inspect_evals")
    from fakes.tau2 import Tau2

    monkeypatch.setenv("LOOPBACK_API_KEY", "none")
    cure = "Answer with one word."  # what `write_blanks` says
    play = Tau2(
        domain, errs=lambda task, said: said == "wrong" or (len(said) > 50 and cure not in said)
    ).behave()

    def answer(handler: Any, body: dict[str, Any]) -> None:
        (write_blanks if body["model"] == "writer" else play)(handler, body)

    out = tmp_path / "paper.json"
    with Server(default=answer) as server:
        main(
            [
                *("--task", f"tau2_{domain}", "--target", "inspect:openai-api/loopback/agent"),
                *("--customer", "openai-api/loopback/user", "--target-set", f"base_url={server.url}"),
                *("--denoiser", "chat:writer", "--denoiser-set", f"base_url={server.url}"),
                *(
                    "--calls",
                    {"airline": "950", "retail": "2400"}[domain],
                    "--calls-per-sample",
                    "8",
                    "--runs",
                    str(tmp_path / "runs"),
                    "--out",
                    str(out),
                ),
            ]
        )
    (run,) = json.loads(out.read_text())["runs"]
    assert run["verdict"] == "improved" and run["after"]["mean"] == 1.0 and run["before"]["mean"] < 0.6
    assert run["after"]["n"] == {"airline": 25, "retail": 57}[domain]
