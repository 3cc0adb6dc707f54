"""A whole optimisation against an OpenAI-compatible server that also fails: what counts, what does
not, and that the ledger is what the server saw."""

from pathlib import Path
from threading import Lock

import pytest

import remask
from fakes.colours import Oracle, optimize
from fakes.server import Behaviour, Body, Handler, Server, answer, raw, status
from remask.errors import TargetRefused, TargetUnreliable

AT_ONCE = {"Retry-After": "0"}


class Flaky:
    """Answers like Oracle; every tenth request fails in the given way."""

    def __init__(self, fault: Behaviour) -> None:
        self.oracle, self.fault, self.lock, self.n = Oracle(), fault, Lock(), 0

    def __call__(self, handler: Handler, body: Body) -> None:
        with self.lock:
            self.n += 1
            fails = self.n % 10 == 0
            text = self.oracle(body["messages"])
        (self.fault if fails else answer(text))(handler, body)


def play(server: Server, run_dir: Path, max_calls: int, model: str = "openai:tiny") -> remask.Result:
    target = remask.Target(model, base_url=server.url, timeout=5.0)
    return optimize(run_dir, target=target, max_calls=max_calls)


@pytest.mark.parametrize("fault", [429, 500])
@pytest.mark.parametrize("model", ["openai:tiny", "inspect:openai-api/desk/tiny"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of inspect_evals
def test_a_flaky_server_changes_the_cost_not_the_verdict(
    tmp_path: Path, fault: int, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESK_API_KEY", "sk-test-0123456789")
    behave = Flaky(status(fault, headers=AT_ONCE))
    with Server(default=behave) as server:
        result = play(server, tmp_path / "run", 900, model)
        assert result.verdict == "improved"
        assert result.test.n == 180
        free = server.requests // 10 if fault == 429 else 0  # refused before any work
        assert result.spend.calls == server.requests - free <= 900
        assert result.spend.uncertain == 0


def test_rows_that_fail_for_good_end_the_run_and_are_never_scores(tmp_path: Path) -> None:
    with Server(default=Flaky(raw(b"<html>busy</html>", "text/html"))) as server:
        with pytest.raises(TargetUnreliable, match="rows have no score"):
            play(server, tmp_path / "run", 900)
        assert not (tmp_path / "run" / "result.json").exists()


def test_a_wrong_key_ends_the_run_at_once(tmp_path: Path) -> None:
    with Server(default=status(401)) as server:
        with pytest.raises(TargetRefused):
            play(server, tmp_path / "run", 900)
        assert server.requests <= 8, "the calls in flight, and no more"
