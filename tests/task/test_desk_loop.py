"""The whole way on a task of Inspect with the real embedded denoiser: protocol proven here, quality
unproven (the agent is scripted)."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("inspect_ai")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "desk.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def desk() -> ModuleType:
    spec = importlib.util.spec_from_file_location("desk_benchmark", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_embedded_denoiser_finds_what_only_the_reviewer_says(
    desk: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five seeds of five did (benchmarks/results/desk.json)."""
    monkeypatch.setenv("LOOPBACK_API_KEY", "none")
    row = desk.play(2, "embedded", tmp_path / "run")
    assert row["calls"] == row["requests"] <= desk.BUDGET
    assert row["verdict"] == "improved" and row["after"] == 1.0
    assert desk.names_a_paper(row["prompt"]) and not desk.names_a_paper(desk.POLICY)


def test_random_word_edits_hardly_ever_find_it(desk: ModuleType) -> None:
    """At most one seed in ten. Measured 0.07 of 300; were it 0.07, more than 0.1 of 300 would be
    seen with a probability of 3 %."""
    assert desk.chance(300) <= 0.1
