"""The whole way on a task of Inspect with the real built-in denoiser: protocol proven here, quality
unproven (the agent is scripted)."""

from pathlib import Path

import pytest

pytest.importorskip("inspect_ai")

import remask
from benchmarks.tasks import desk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def test_builtin_denoiser_finds_words_of_the_reviewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five seeds of five did (benchmarks/results/desk.json)."""
    monkeypatch.setenv("LOOPBACK_API_KEY", "none")
    row = desk.run_once(2, remask.Denoiser(guidance=desk.GUIDANCE), tmp_path / "run")
    assert row["calls"] == row["requests"] <= desk.BUDGET
    assert row["verdict"] == "improved" and row["after"] == 1.0
    assert desk.names_a_paper(row["prompt"]) and not desk.names_a_paper(desk.POLICY)


def test_random_word_edits_rarely_find_words_of_the_reviewer() -> None:
    """At most one seed in ten. Measured 0.07 of 300; were it 0.07, more than 0.1 of 300 would be
    seen with a probability of 3 %."""
    assert desk.measure_chance(300) <= 0.1
