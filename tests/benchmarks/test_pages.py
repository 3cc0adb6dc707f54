"""Pages and pictures of benchmarks: `--page` writes them from the committed results."""

import importlib
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks.record import ROOT, command_of, read_json
from benchmarks.search import endpoint, report
from benchmarks.search.bootstrap import DRAWS, compare_tables

# Every benchmark with a page or a picture, and the module that names its files.
PAGES = {
    "benchmarks.search.__main__": "benchmarks.search.page",
    "benchmarks.acceptance.__main__": "benchmarks.acceptance.page",
    "benchmarks.denoiser.steps": "benchmarks.denoiser.steps",
    "benchmarks.denoiser.adapter_report": "benchmarks.denoiser.adapter_report",
    "benchmarks.denoiser.speed": "benchmarks.denoiser.speed",
    "benchmarks.faults": "benchmarks.faults",
    "benchmarks.paper.__main__": "benchmarks.paper.page",
    "benchmarks.view": "benchmarks.view",
    "benchmarks.tau_case": "benchmarks.tau_case",
    "benchmarks.components": "benchmarks.components",
    "benchmarks.long_policy": "benchmarks.long_policy",
    "benchmarks.watch": "benchmarks.watch",
    "benchmarks.scale": "benchmarks.scale",
    "benchmarks.limiter": "benchmarks.limiter",
    "benchmarks.ingest": "benchmarks.ingest",
}
OTHERS = (
    "benchmarks.acceptance.candidates",
    "benchmarks.compare_checkouts",
    *(f"benchmarks.denoiser.{name}" for name in ("ablation", "domain", "fills", "measured_edits")),
    *("benchmarks.injection", "benchmarks.tasks.desk", "benchmarks.local_target"),
    "benchmarks.shorten",
)
# What draws of the bootstrap decide: intervals, and a p-value with its verdict.
DRAWN = re.compile(r"[-+][.\d]+ to [-+][.\d]+|p = [.\d]+ after Holm: (not )?above zero")
BLOCK = re.compile(r"(<!-- (\w+):begin -->\n).*?(<!-- \2:end -->)", re.DOTALL)


def find_documents(folder: Path) -> list[Path]:
    """The README, and the pages and pictures below docs that benchmarks write."""
    docs = folder / "docs"
    below = (path for end in ("md", "svg") for path in docs.rglob(f"*.{end}"))
    others = {docs / "reference", docs / "assets"}
    return [folder / "README.md", *(p for p in sorted(below) if others.isdisjoint(p.parents))]


@pytest.fixture
def emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all documents without generated blocks and pictures, which benchmarks write to."""
    documents = find_documents(ROOT)
    for path in documents:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            copy.write_text(BLOCK.sub(r"\1\3", path.read_text("utf-8")), "utf-8")
    for name in PAGES.values():
        module = importlib.import_module(name)
        for key, value in vars(module).items():
            if isinstance(value, Path) and value in documents:
                monkeypatch.setattr(module, key, tmp_path / value.relative_to(ROOT))
    return tmp_path


@pytest.mark.parametrize("draws", [20, pytest.param(DRAWS, marks=pytest.mark.slow)])
def test_generated_blocks_and_pictures_come_from_the_results(
    draws: int, emptied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few draws of the bootstrap everything but the intervals of the search is compared."""
    for module in (report, endpoint):
        monkeypatch.setattr(module, "compare_tables", partial(compare_tables, draws=draws))
    for name in PAGES:
        importlib.import_module(name).main(["--page"])
    for path in find_documents(ROOT):
        copy = emptied / path.relative_to(ROOT)
        if path.suffix == ".svg":  # other versions of matplotlib draw other bytes
            assert copy.is_file() and "</svg>" in copy.read_text("utf-8"), f"nothing draws {path}"
            continue
        texts = [page.read_text("utf-8") for page in (copy, path)]
        if draws < DRAWS:
            texts = [DRAWN.sub("", text) for text in texts]
        assert texts[0] == texts[1], f"{path}: run --page of its benchmark"


def test_every_benchmark_runs_as_a_module_and_is_listed() -> None:
    listed = (ROOT / "docs" / "results" / "benchmarks.md").read_text("utf-8")
    modules = {name.removesuffix(".__main__") for name in (*PAGES, *OTHERS)}
    runnable = {
        command_of(str(path)).removeprefix("python -m ")
        for path in (ROOT / "benchmarks").rglob("*.py")
        if '__name__ == "__main__"' in path.read_text("utf-8")
    }
    assert runnable == modules
    assert not [name for name in modules if f"python -m {name}" not in listed]


@pytest.mark.parametrize("name", ["compare_checkouts", "acceptance"])
def test_a_benchmark_says_how_it_is_called(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: python -m benchmarks.{name}")


def test_results_are_read_in_the_names_of_today(tmp_path: Path) -> None:
    text = '{"dlm": 1.0, "rows": [{"masker": "blame", "objection": ""}], "target": "embedded"}'
    (tmp_path / "old.json").write_text(text)
    assert read_json(tmp_path / "old.json") == {
        "denoiser": 1.0,
        "rows": [{"masker": "attribution", "violation": ""}],
        "target": "builtin",
    }
    with pytest.raises(SystemExit, match="run the benchmark first"):
        read_json(tmp_path / "new.json")
