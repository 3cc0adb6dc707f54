"""Runs without right answers: from inputs alone, and from the prompt alone."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import remask
from fakes import Cut, write_lines
from fakes.checked import optimize_checked
from fakes.colours import Phrases, search
from fakes.command import remask as run
from fakes.server import Body, Handler, Server, completion
from remask.data.synthetic import MAX_STALE_CALLS, MIN_QUERIES, ask_queries, count_max_calls, read_queries
from remask.errors import ConfigError, TargetUnreliable
from remask.events import UnlabelledInputs, decode
from remask.ports import Reply
from remask.prompt import Prompt
from remask.runs.store import Store
from remask.types import Chat, Example

START = "Name it. Be brief."
ASKS = "Write a numbered list of"
QUERIES = remask.Dataset(queries=48)


def written(asked: int) -> str:
    """An answer with ten messages, two of which the answer before had too."""
    first = 8 * asked
    return "Here you are:\n" + "\n".join(f'{i - first + 1}. "item {i}"' for i in range(first, first + 10))


@dataclass
class Painter:
    """Knows colours only when its prompt mentions them, and what its users write."""

    asked: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, messages: list[dict[str, str]]) -> str:
        self.asked.append(tuple(message["content"] for message in messages))
        user = messages[-1]["content"]
        if user.startswith(ASKS):
            return written(self.lists - 1)
        return "blue" if "colours" in messages[0]["content"] else "grey"

    @property
    def lists(self) -> int:
        return sum(one[-1].startswith(ASKS) for one in self.asked)


def colourful(row: Example, text: str) -> float:
    return float(text != "grey")


def optimize(folder: Path, target: Painter, **more: Any) -> remask.Result:
    return remask.optimize(START, **(arguments(folder, target) | more))


def arguments(folder: Path, target: Painter) -> dict[str, Any]:
    return {
        "data": QUERIES,
        "target": target,
        "metric": colourful,
        "denoiser": Phrases(),
        "search": search(candidates=4),
        "max_calls": 400,
        "run_dir": folder / "run",
    }


def unlabelled_inputs(run_dir: Path) -> UnlabelledInputs | None:
    with Store.read(run_dir) as store:
        return next((e for e in map(decode, store.events()) if isinstance(e, UnlabelledInputs)), None)


# --- from the prompt alone


def test_from_the_prompt_alone(tmp_path: Path) -> None:
    painter = Painter()
    found = optimize(tmp_path, painter)
    event = unlabelled_inputs(tmp_path / "run")
    assert event is not None and event.basis == "prompt"
    assert event.queries == tuple(f"item {i}" for i in range(48))
    assert painter.lists == 6, "eight new ones of each answer"
    assert found.verdict == "improved" and "colours" in found.prompt
    assert (found.test.n, found.test.baseline, found.test.best) == (24, 0, 1)
    assert found.spend.calls == len(painter.asked) == len(set(painter.asked)) <= 400
    assert any("the 48 rows are messages that the target wrote" in w for w in found.warnings)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "messages that the target wrote" in page


@pytest.mark.parametrize("calls", [0, 1, 3, 5, 6, 18])
def test_what_was_written_is_never_asked_for_again(tmp_path: Path, calls: int) -> None:
    """Cut before any call of the asking and just after it; the end is that of the whole run."""
    whole = optimize(tmp_path, Painter(), run_dir=tmp_path / "whole")
    painter = Painter()

    def checkpoint() -> None:
        if len(painter.asked) == calls:
            raise Cut

    with pytest.raises(Cut):
        optimize_checked(START, checkpoint, **arguments(tmp_path, painter))
    found = remask.resume(tmp_path / "run", target=painter, metric=colourful, denoiser=Phrases())
    assert len(painter.asked) == len(set(painter.asked)) == found.spend.calls
    assert found.prompt == whole.prompt and found.test == whole.test
    assert unlabelled_inputs(tmp_path / "run") == unlabelled_inputs(tmp_path / "whole")


def test_the_asking_comes_out_of_the_budget(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"to write messages, .* for the sealed test"):
        optimize(tmp_path, Painter(), max_calls=count_max_calls(48) + 48 + 12)
    painter = Painter()
    found = optimize(tmp_path, painter, max_calls=130)
    assert found.spend.calls == len(painter.asked) <= 130


class Lists:
    """A target of which only what it writes matters."""

    def __init__(self, answers: list[Reply]) -> None:
        self.answers, self.asked = answers, 0

    def respond(self, chats: list[Chat], repeat: int = 0) -> list[Reply]:
        self.asked += len(chats)
        return [self.answers[(self.asked - 1) % len(self.answers)]]


@given(
    st.lists(st.lists(st.text("ab ", max_size=6), max_size=12), min_size=1, max_size=6), st.integers(1, 60)
)
def test_queries_are_different_and_calls_bounded(answers: list[list[str]], n: int) -> None:
    target = Lists([Reply("\n".join(lines)) for lines in answers])
    try:
        found = ask_queries(target, Prompt(START), n)  # type: ignore[arg-type]
        assert min(n, MIN_QUERIES) <= len(found) <= n
        assert len({query.casefold() for query in found}) == len(found)
    except TargetUnreliable as error:
        assert "--data" in str(error)
    assert 1 <= target.asked <= count_max_calls(n)


def test_failed_calls_are_named() -> None:
    target = Lists([Reply("", error="the server is on fire")])
    with pytest.raises(TargetUnreliable, match=r"wrote 0 .* on fire; give messages"):
        ask_queries(target, Prompt(START), 20)  # type: ignore[arg-type]


def test_answers_are_read_line_by_line() -> None:
    text = (
        "Sure! Here are some messages:\n\n1. “Where is it?”\n2) Hi there\n- My bike: broken?\n"
        '* "Quoted" words stay\nUser: hello\u200b\n---\n### Complaints\n3. \n12\n'
        f"{'x' * 2000}\n<|im_end|> last"
    )
    assert read_queries(text) == [
        "Where is it?", "Hi there", "My bike: broken?", '"Quoted" words stay', "hello", "last",
    ]  # fmt: skip


# --- from inputs alone


def inputs(n: int = 80) -> list[dict[str, str]]:
    return [{"input": f"item {i}"} for i in range(n)]


def test_from_inputs_alone(tmp_path: Path) -> None:
    painter = Painter()
    found = optimize(tmp_path, painter, data=inputs())
    assert found.verdict == "improved" and painter.lists == 0
    assert unlabelled_inputs(tmp_path / "run") == UnlabelledInputs("inputs", "function:colourful")
    assert any("no right answers" in warning for warning in found.warnings)


def test_a_good_answer_is_the_right_one_where_none_is_given(tmp_path: Path) -> None:
    seen = []

    class Reader(Phrases):
        def infill(self, context: Any, canvases: Any, seed: int) -> Any:
            seen.extend(context)
            return super().infill(context, canvases, seed)

    remask.optimize(
        "Name colours. Be brief.", inputs(), target=lambda m: "blue" if "7" in m[-1]["content"] else
        "grey", metric=colourful, denoiser=Reader(), run_dir=tmp_path / "run",
        max_calls=400, search=search(candidates=4),
    )  # fmt: skip
    assert {(t.response, t.desired) for t in seen} == {("grey", None), ("blue", "blue")}


def test_a_column_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no column 'lable'"):
        optimize(tmp_path, Painter(), data=remask.Dataset(inputs(), expected="lable"))


def test_right_answers_make_no_such_event(tmp_path: Path) -> None:
    rows = [{**row, "label": ("red", "blue")[i % 2]} for i, row in enumerate(inputs())]
    optimize(tmp_path, Painter(), data=rows)
    assert unlabelled_inputs(tmp_path / "run") is None


# --- the command line


@pytest.fixture
def here(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a prompt and rows of inputs, in which the built-in denoiser is Phrases."""
    (here / "prompt.md").write_text(START)
    write_lines(here / "inputs.jsonl", *inputs())
    monkeypatch.setattr("remask.api.job.make_denoiser", lambda *_: Phrases())
    return here


@pytest.fixture
def server() -> Iterator[Server]:
    """Target and judge: an answer with a colour in it is a good one."""
    lists = 0

    def reply(handler: Handler, body: Body) -> None:
        nonlocal lists
        text = body["messages"][-1]["content"]
        if body["model"] == "judge":
            said = "Score: 0" if "grey" in text else "Score: 10"
        elif text.startswith(ASKS):
            said, lists = written(lists), lists + 1
        else:
            said = "blue" if "colours" in body["messages"][0]["content"] else "grey"
        handler.send(200, json.dumps(completion(said)).encode())

    with Server(default=reply) as made:
        yield made


JUDGE = ("--judge", "openai:judge", "--rubric", "It names a colour.")


@pytest.mark.parametrize("data", [(), ("--data", "inputs.jsonl")])
def test_a_judge_is_enough(here: Path, server: Server, data: tuple[str, ...]) -> None:
    target = ("--target", "openai:tiny", "--base-url", server.url, *JUDGE)
    less = () if data else ("--queries", 32)
    done = run("optimize", "prompt.md", *data, *target, *less, "--max-calls", 900,
               "--masker", "insert", "--run-dir", "run", "--plain")  # fmt: skip
    assert done.exit_code == 0, done.output
    says = "no right answers" if data else "no data: the target wrote 32 messages of users"
    assert says in done.stdout
    found = json.loads((here / "run" / "result.json").read_text())
    assert found["verdict"] == "improved" and found["spend"]["calls"] == len(server.bodies) <= 900
    warning = "has no right answers" if data else "messages that the target wrote"
    assert any(warning in text for text in found["warnings"])
    assert warning in done.stdout


def test_a_toml_starts_from_the_prompt_alone_and_goes_on(here: Path, server: Server) -> None:
    (here / "remask.toml").write_text(
        f"""prompt = "prompt.md"
run_dir = "run"
[data]
queries = 24
[target]
model = "openai:tiny"
base_url = "{server.url}"
[metric]
name = "judge"
rubric = "It names a colour."
judge = {{model = "openai:judge", base_url = "{server.url}"}}
[search]
maskers = ["insert"]
candidates = 4
[budget]
calls = 400
"""
    )
    checked = run("check")
    assert "no data: the target will write 24 messages" in checked.output, checked.output
    asked = re.search(r"messages of the target: at most (\d+) calls", checked.output)
    assert asked and int(asked[1]) == count_max_calls(24)
    assert not server.bodies
    done = run("optimize", "--json")
    kinds = [json.loads(line)["kind"] for line in done.stdout.splitlines()]
    assert kinds[0] == "UnlabelledInputs" and kinds[-1] == "Result"
    again = run("resume", "run")
    assert again.exit_code == 0 and "messages that the target wrote" in again.output
    assert run("show", "run").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["optimize", "prompt.md"], "no data is given; give --data FILE .* --judge .* --rubric"),
        (["check", "prompt.md"], "--judge .* --rubric"),
        (["eval", "prompt.md"], "no data is given; give --data FILE, or data.path"),
        (["optimize", "prompt.md", "--data", "inputs.jsonl"],
         "no column 'label'; .*--judge openai:MODEL --rubric"),
        (["optimize", "prompt.md", "--judge", "openai:x"], "--judge needs --rubric"),
        (["optimize", "prompt.md", "--metric", "f1", *JUDGE], "exclude each other"),
        (["optimize", "prompt.md", "--metric", "judge"], "--judge openai:MODEL --rubric TEXT"),
        (["optimize", "prompt.md", "--queries", "20"], "--judge openai:MODEL --rubric"),
        (["optimize", "prompt.md", "--data", "inputs.jsonl", "--queries", "20", *JUDGE],
         "leave out either"),
        (["optimize", "filled.md", *JUDGE], "the variable {question}"),
        (["optimize", "prompt.md", "--queries", "3", *JUDGE],
         r"--queries \(data.queries\) is 3, but must be at least 12"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence_that_names_the_flags(
    here: Path, arguments: list[str], says: str
) -> None:
    (here / "filled.md").write_text("Answer {question} for {input}.")
    done = run(*arguments)
    lines = (done.stderr or done.output).splitlines()
    assert done.exit_code == 2 and any(re.search(says, line) for line in lines), done.output
    if arguments[0] != "check":
        assert len(lines) == 1
    assert not (here / "runs").exists()


# --- with the built-in models


@pytest.mark.slow
def test_the_builtin_models_from_inputs_alone(tmp_path: Path) -> None:
    said = ("Where is my parcel?", "I want my money back.", "Hello!", "My key is lost.")
    rows = [{"input": f"{said[i % 4]} ({i})", "split": ("train", "validation", "test")[i % 3]}
            for i in range(12)]  # fmt: skip
    found = remask.optimize(
        "You answer customers.",
        remask.Dataset(rows, split="split"),
        target=remask.Target(max_tokens=16),
        metric=lambda row, text: float(len(text) < 60),
        search=remask.Search(candidates=2, traces=2, context_tokens=100),
        max_calls=30,
        run_dir=tmp_path / "run",
    )
    assert found.spend.calls <= 30 and any("no right answers" in w for w in found.warnings)


@pytest.mark.slow
def test_the_builtin_target_is_too_small_to_write_messages(tmp_path: Path) -> None:
    """It writes one message over and over; the run ends early and says what to do."""
    with pytest.raises(TargetUnreliable, match=r"usable example queries, .* with --data"):
        remask.optimize(
            "You are the support agent of a bicycle shop. Answer politely and briefly.",
            remask.Dataset(queries=24),
            target=remask.Target(max_tokens=16),
            metric=lambda row, text: float(len(text) < 60),
            max_calls=200,
            run_dir=tmp_path / "run",
        )
    with Store.read(tmp_path / "run") as store:
        assert MAX_STALE_CALLS < store.get_spend().calls < count_max_calls(24)
