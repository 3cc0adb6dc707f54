"""Tasks of Inspect over a real loopback server: metering, placing the prompt, cuts, budgets."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

pytest.importorskip("inspect_ai")
from fakes import ROOT, Cut

EXAMPLE = ROOT / "examples" / "inspect"
sys.path.insert(0, str(EXAMPLE))

from desk import POLICY, TEMPLATE  # noqa: E402
from inspect_ai.scorer import Score  # noqa: E402
from loopback import Loopback, Message, call, say  # noqa: E402

import remask  # noqa: E402
from fakes.checked import optimize_checked  # noqa: E402
from remask.api.job import Hooks, Job, open_job  # noqa: E402
from remask.cli import main  # noqa: E402
from remask.config import Config, make_config  # noqa: E402
from remask.errors import BudgetSpent, ConfigError, TargetRefused  # noqa: E402
from remask.events import Accepted  # noqa: E402
from remask.ports import Canvas, Context, Fill, Hole, Task  # noqa: E402
from remask.prompt import Prompt, join_components  # noqa: E402
from remask.runs.budget import Spend  # noqa: E402
from remask.runs.store import Store  # noqa: E402
from remask.tasks.inspect.task import load_suite, read_score  # noqa: E402
from remask.types import Outcome  # noqa: E402

DESK = f"{EXAMPLE / 'desk.py'}@desk"
MODEL = "inspect:openai-api/loopback/agent"
BETTER = Prompt(POLICY + " Ask for the receipt.")
EACH = (20, 5)  # tokens that the server reports of a call

pytestmark = [
    # Inspect's HTTP client leaves sockets to the garbage collector when a sample is cancelled.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPBACK_API_KEY", "none")


def agent(model: str, messages: list[Message]) -> Message:
    """Odd cases are right only if the policy names the receipt."""
    if messages[-1]["role"] == "tool":
        return say("It is done.")
    hard = int(messages[-1]["content"].split()[1].rstrip(":")) % 2 == 1
    known = "receipt" in messages[0]["content"]
    return call("close_case", code="refund" if hard and known else "repair")


def settings(url: str, **sections: Any) -> Config:
    values: dict[str, Any] = {
        "prompt": POLICY,
        "task": {"name": DESK, "args": {"copies": 1}, "calls_per_sample": 2},
        "target": {"model": MODEL, "base_url": url, "retries": 0, "concurrency": 1},
        "budget": {"calls": None},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    return make_config(values, "test")


@contextmanager
def opened(
    config: Config, folder: Path, checkpoint: Callable[[], None] = lambda: None
) -> Iterator[tuple[Job, Task, Store]]:
    make = Store.open if folder.exists() else Store.create
    with open_job(config, hooks=Hooks(checkpoint=checkpoint), run_dir=folder) as job:
        job.require_rows(("train",))
        with make(folder, job.record) as store:
            job.ledger.open_store = store
            yield job, job.task, store


def check(config: Config) -> None:
    with open_job(config) as job:
        job.require_rows()
        job.require_target()


def scores(outcomes: list[Outcome]) -> list[float]:
    assert all(o.status == "scored" for o in outcomes), [o.error for o in outcomes]
    return [o.score for o in outcomes]


def test_sample_task_gives_scores_explanations_and_calls(tmp_path: Path) -> None:
    seen: list[str] = []

    def answer(model: str, messages: list[Message]) -> Message:
        seen.append(messages[0]["content"])
        return agent(model, messages)

    with Loopback(answer) as server, opened(settings(server.url), tmp_path / "run") as (_, task, s):
        ids = task.ids("train")
        before = task.evaluate(Prompt(POLICY), ids)
        assert set(scores(before)) == {0.0, 1.0}
        assert set(seen) == {TEMPLATE.replace("{policy}", POLICY)}
        wrong = next(o.trace for o in before if o.score == 0)
        right = next(o.trace for o in before if o.score == 1)
        assert wrong and right
        assert wrong.query.startswith("Case ")
        assert wrong.response == 'close_case(code="repair")\nIt is done.'
        assert wrong.feedback[0].text.endswith(".") and wrong.desired is None
        assert not right.feedback
        spent, n = s.get_spend(), 2 * len(ids)
        assert server.requests == n
        assert (spent.calls, spent.input_tokens, spent.output_tokens) == (n, n * 20, n * 5)
        assert scores(task.evaluate(BETTER, ids)) == [1.0] * len(ids)
        assert seen[-1] == TEMPLATE.replace("{policy}", BETTER.text)
        asked = server.requests
        assert task.evaluate(Prompt(POLICY), ids) == before
        assert server.requests == asked  # what was scored is free
        assert list((tmp_path / "run" / "inspect").glob("*.eval"))  # Inspect's own logs


def test_system_prompt_is_found_without_a_model() -> None:
    assert remask.system_prompt_of(DESK) == TEMPLATE.replace("{policy}", POLICY)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"task": {"name": "inspect_evals/no_such_task"}}, "no_such_task"),
        ({"task": {"args": {"copies": 1, "colour": 2}}}, "no argument 'colour'"),
        ({"target": {"model": "builtin"}}, "inspect:PROVIDER/MODEL"),
        ({"target": {"model": "inspect:nowhere/m"}}, "nowhere"),
        ({"task": {"roles": {"user": "nowhere/m"}}}, "nowhere"),
    ],
)
def test_wrong_settings_are_named_before_the_first_call(sections: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(settings("http://127.0.0.1:9/v1", **sections))


def test_prompt_in_no_system_message_is_refused() -> None:
    config = settings("http://127.0.0.1:9/v1").model_copy(update={"prompt": "Another policy."})
    with pytest.raises(ConfigError, match="contains the prompt literally"):
        check(config)


def test_limit_in_dollars_needs_prices_and_max_tokens(tmp_path: Path) -> None:
    priced = {"input_price": 1.0, "output_price": 2.0}
    with pytest.raises(ConfigError, match=r"task\.roles\.user\.input_price"):
        check(settings("", budget={"usd": 1.0}, target=priced, task={"roles": {"user": "a/b"}}))
    with Loopback(agent) as server:
        config = settings(server.url, budget={"usd": 1.0}, target=priced)
        endless = opened(config, tmp_path / "endless")
        with pytest.raises(ConfigError, match="set max_tokens"), endless:
            pass
        config = settings(server.url, budget={"usd": 1.0}, target={**priced, "max_tokens": 50})
        with opened(config, tmp_path / "run") as (_, task, store):
            ids = task.ids("train")[:2]
            task.evaluate(Prompt(POLICY), ids)
            assert store.get_spend().usd == pytest.approx(4 * (20 * 1.0 + 5 * 2.0) / 1e6)


def test_spent_budget_is_not_passed_and_loses_no_score(tmp_path: Path) -> None:
    """Samples are expected to take one call and take two, so the limit falls within samples."""
    with Loopback(agent) as server:
        config = settings(server.url, budget={"calls": 11}, task={"calls_per_sample": 1})
        with opened(config, tmp_path / "run") as (_, task, store):
            ids = task.ids("train")
            with pytest.raises(BudgetSpent, match="11 of 11 calls used"):
                task.evaluate(Prompt(POLICY), ids)
            assert store.get_spend().calls == server.requests == 11
            with pytest.raises(BudgetSpent):  # refused before a sample is begun
                task.evaluate(Prompt(POLICY), ids)
            assert server.requests == 11
            kept = [o for id in ids[:5] for o in task.evaluate(Prompt(POLICY), [id])]
            assert len(scores(kept)) == 5  # those that had finished are not lost


def test_interrupted_sample_continues_without_paying_twice(tmp_path: Path) -> None:
    with Loopback(agent) as server:
        config = settings(server.url)
        with opened(config, tmp_path / "whole") as (_, task, _):
            ids = task.ids("train")[:6]
            whole = task.evaluate(Prompt(POLICY), ids)
        asked = server.requests

        def checkpoint() -> None:
            if server.requests == asked + 7:  # within the fourth sample
                raise Cut

        with pytest.raises(Cut), opened(config, tmp_path / "cut", checkpoint) as (_, task, _):
            task.evaluate(Prompt(POLICY), ids)
        with opened(config, tmp_path / "cut") as (_, task, store):
            assert task.evaluate(Prompt(POLICY), ids) == whole
            assert store.get_spend().calls == 12
        assert server.requests == 2 * asked


def test_failed_call_gives_no_score_and_is_repeated(tmp_path: Path) -> None:
    broken = True

    def answer(model: str, messages: list[Message]) -> Message:
        if broken and "Case 3:" in messages[1]["content"]:
            raise ConnectionAbortedError
        return agent(model, messages)

    with Loopback(answer) as server, opened(settings(server.url), tmp_path / "r") as (job, task, s):
        numbers = {e.id: e.input.split(":")[0] for e in job.dataset.examples}
        ids = [id for id, number in numbers.items() if number in ("Case 2", "Case 3", "Case 4")]
        outcomes = {numbers[o.example]: o for o in task.evaluate(Prompt(POLICY), ids)}
        assert outcomes["Case 3"].status == "failed"
        assert "agent" in outcomes["Case 3"].error
        assert [outcomes[f"Case {n}"].score for n in (2, 4)] == [1.0, 1.0]
        assert s.get_spend().calls == 5
        broken = False
        assert len(scores(task.evaluate(Prompt(POLICY), ids))) == 3
        assert s.get_spend().calls == 7


def test_missing_answer_gives_no_score(tmp_path: Path) -> None:
    late = threading.Event()

    def answer(model: str, messages: list[Message]) -> Message:
        late.wait(20)
        return agent(model, messages)

    with Loopback(answer) as server:
        config = settings(server.url, target={"timeout": 1.0})
        with opened(config, tmp_path / "run") as (_, task, store):
            (outcome,) = task.evaluate(Prompt(POLICY), task.ids("train")[:1])
            late.set()
            assert outcome.status == "failed" and "no answer in time" in outcome.error
            assert (store.get_spend().calls, store.get_spend().uncertain) == (1, 1)


def test_refused_key_ends_the_run_at_no_cost(tmp_path: Path) -> None:
    from fakes.server import Server, status

    with (
        Server(default=status(401)) as server,
        opened(settings(server.url), tmp_path / "run") as (_, task, store),
    ):
        with pytest.raises(TargetRefused, match="401"):
            task.evaluate(Prompt(POLICY), task.ids("train"))
        assert store.get_spend() == Spend(seconds=store.get_spend().seconds)
        assert server.requests == 1


def test_role_without_a_model_uses_the_target_with_its_own_prompt(tmp_path: Path) -> None:
    """Only the system message that holds the baseline is changed."""
    with Loopback(agent) as server:
        config = settings(server.url, task={"roles": {"user": "openai-api/loopback/user"}})
        assert config.roles()["user"].base_url == server.url  # the same provider, the same place
        with opened(config, tmp_path / "run") as (_, task, _):
            assert scores(task.evaluate(Prompt(POLICY), task.ids("train")[:1]))


def test_splits_depend_only_on_content() -> None:
    first, second = (load_suite(DESK, {"copies": 2}, (0.25, 0.25, 0.5)) for _ in range(2))
    splits = {e.id: e.split for e in first.dataset.examples}
    assert splits == {e.id: e.split for e in second.dataset.examples}
    assert sorted(splits.values()).count("test") == 40
    fewer = load_suite(DESK, {"copies": 1}, (0.25, 0.25, 0.5)).dataset.examples
    assert {e.id for e in fewer} < set(splits)


@pytest.mark.parametrize(
    ("value", "wanted", "number"),
    [("C", "", 1.0), ("I", "", 0.0), ("P", "", 0.5), (True, "", 1.0), (0.25, "", 0.25),
     ("yes", "", 1.0), ({"a": 1, "b": 0}, "main/b", 0.0)],
)  # fmt: skip
def test_read_score_converts_values(value: Any, wanted: str, number: float) -> None:
    assert read_score({"main": Score(value=value, explanation="Why.")}, wanted) == (number, "Why.")


@pytest.mark.parametrize(
    ("value", "wanted", "words"),
    [(float("nan"), "", "not between"), (37.5, "", "not between"), ("good", "", "not a number"),
     ({"a": 1}, "", r"NAME/KEY"), (1, "other", "no score 'other'")],
)  # fmt: skip
def test_read_score_explains_values_that_are_no_scores(value: Any, wanted: str, words: str) -> None:
    found, _ = read_score({"main": Score(value=value)}, wanted)
    assert isinstance(found, str) and words in found


class Receipts:
    """A denoiser that writes the right sentence into every third hole, in its own words: those of
    the review would be stopped by the guard."""

    def count(self, text: str) -> int:
        return len(text.split())

    def infill(self, context: Context, canvases: list[Canvas], seed: int) -> list[Fill]:
        words = ("Be kind.", "No receipt, no refund.", "Say it once.")
        return [
            Fill(tuple(words[(seed + i) % 3] for p in canvas if isinstance(p, Hole)), -1.0)
            for i, canvas in enumerate(canvases)
        ]


def test_a_wish_to_stop_ends_a_long_wait_for_an_answer(tmp_path: Path) -> None:
    """The server answers after a minute; the run must not wait for it."""
    waiting, closing = threading.Event(), threading.Event()

    def slow(model: str, messages: list[Message]) -> Message:
        waiting.set()
        closing.wait(60)
        return agent(model, messages)

    def checkpoint() -> None:
        if waiting.is_set():
            raise Cut

    with (
        Loopback(slow) as server,
        pytest.raises(Cut),
        opened(settings(server.url), tmp_path / "run", checkpoint) as (_, task, store),
    ):
        began = time.monotonic()
        try:
            task.evaluate(Prompt(POLICY), task.ids("train"))
        finally:
            closing.set()
            assert time.monotonic() - began < 40
            assert store.get_spend().uncertain == 1  # the call in flight


@pytest.mark.slow
def test_interrupted_run_ends_like_a_whole_one(tmp_path: Path) -> None:
    with Loopback(agent) as server:
        arguments: dict[str, Any] = {
            "task": remask.InspectTask(DESK, args={"copies": 1}, calls_per_sample=2),
            "target": remask.Target(MODEL, base_url=server.url, concurrency=1),
            "denoiser": Receipts(),
            "search": remask.Search(candidates=3, maskers=["insert"]),
            "max_calls": 500,
        }
        whole = remask.optimize(POLICY, run_dir=tmp_path / "whole", **arguments)
        asked = server.requests
        assert whole.test.baseline < whole.test.best == 1.0
        assert "receipt" in whole.prompt
        assert whole.spend.calls == asked

        def checkpoint() -> None:
            if server.requests == asked + 75:
                raise Cut

        with pytest.raises(Cut):
            optimize_checked(POLICY, checkpoint, tmp_path / "cut", **arguments)
        again = remask.resume(tmp_path / "cut", denoiser=Receipts())
        assert (again.prompt, again.test, again.spend.calls) == (
            whole.prompt, whole.test, asked
        )  # fmt: skip
        assert server.requests == 2 * asked
        with Store.read(tmp_path / "whole") as a, Store.read(tmp_path / "cut") as b:
            events = list(a.events())
            assert events == list(b.events())
        assert any(e["kind"] == Accepted.__name__ for e in events)


def test_components_reach_the_system_message_and_the_tools(tmp_path: Path) -> None:
    texts = {"policy": POLICY, "tool:close_case": "Close the case.", "tool:close_case/code": "A code."}
    start = Prompt.parse(join_components(texts))
    better = start.replace_components(
        {"policy": BETTER, "tool:close_case": Prompt("Shut the case."), "tool:close_case/code": Prompt("It.")}
    )
    with (
        Loopback(agent) as server,
        opened(settings(server.url, prompt=start.to_source()), tmp_path / "run") as (job, task, _),
    ):
        assert "2 samples" in job.place_prompt() or "3 samples" in job.place_prompt()
        ids = task.ids("train")[:3]
        task.evaluate(start, ids)
        first = server.last
        assert scores(task.evaluate(better, ids)) == [1.0] * len(ids)
        sent = server.last
    assert sent["messages"][0]["content"] == TEMPLATE.replace("{policy}", BETTER.text)
    (before,), (after,) = first["tools"], sent["tools"]
    assert before["function"]["description"] == "Close the case."
    assert after["function"]["description"] == "Shut the case."
    assert after["function"]["parameters"]["properties"]["code"]["description"] == "It."
    assert after["function"]["name"] == "close_case"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"tool:open": "Open."}, "has no tool or parameter 'tool:open'; its tools: close_case"),
        ({"policy": "Something else."}, "contains the prompt literally"),
    ],
)
def test_components_that_the_task_does_not_send_are_refused(texts: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check(settings("http://127.0.0.1:1/v1", prompt=join_components(texts)))


def test_command_line_checks_and_scores_a_task(tmp_path: Path) -> None:
    file = tmp_path / "policy.md"
    file.write_text(POLICY + "\n")
    with Loopback(agent) as server:
        words = ["--task", DESK, "-T", "copies=1", "--target", MODEL, "--base-url", server.url]
        ran = CliRunner().invoke(main, ["eval", "--prompt", str(file), *words, "--json"])
        assert ran.exit_code == 0, ran.output
        found = orjson.loads(ran.stdout.splitlines()[-1])
        assert 0 < found["score"]["mean"] < 1 and found["spend"]["calls"] == server.requests == 20
        ran = CliRunner().invoke(main, ["check", "--prompt-from", "system", *words, "--json"])
        report = orjson.loads(ran.stdout.splitlines()[-1])
        assert report["ok"], report["findings"]
        ran = CliRunner().invoke(main, ["check", "--prompt-from", "components", *words, "--json"])
        assert "close_case" in ran.stdout, ran.output
        assert server.requests == 20  # nothing was called to find this out
        both = CliRunner().invoke(main, ["eval", str(file), *words, "--data", "rows.jsonl"])
        assert both.exit_code == 2 and "both rows" in both.stderr
