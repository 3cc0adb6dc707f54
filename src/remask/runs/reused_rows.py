"""Which test rows a run has used, and how often other runs of the same folder have used them.

A test whose rows are new gives a false verdict in at most 5 % of cases. Each further test on the same
rows is a further chance, so the number of earlier tests is stored with the test, and the interval is
corrected for it (stats.correct_level).
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from remask.errors import ConfigError
from remask.events import Accepted, Started, Tested
from remask.ids import content_id
from remask.runs import database
from remask.runs.store import RunReader, Store
from remask.stats import format_level

# Of the section [metric]: what decides a score. A time limit and prices do not.
METRIC_KEYS = ("name", "answer", "labels", "repeats", "rubric", "scale")


def identify_metric(config: Mapping[str, Any]) -> str:
    """Return the id of what scores the answers of a run. config: as stored."""
    metric = config.get("metric") or {}
    judge = (metric.get("judge") or {}).get("model", "")
    scorer = (config.get("task") or {}).get("scorer", "")
    own = [metric.get(key) for key in METRIC_KEYS]
    return content_id("metric", own, judge, scorer, config.get("metric_code", ""))


def identify_test_rows(config: Mapping[str, Any], ids: Iterable[str]) -> str:
    """Return the id of a set of test rows that are scored by the metric of this configuration."""
    return content_id("test rows", sorted(ids), identify_metric(config))


def describe_earlier_tests(earlier: int) -> str:
    """Describe how often the test rows of a run were used before; "" where they were not."""
    if not earlier:
        return ""
    times = "once" if earlier == 1 else f"{earlier:,} times"
    return f"these test rows were scored {times} before in this folder"


def describe_reuse(earlier: int, level: float) -> str:
    """Describe in a sentence that test rows were used before; "" where they were not.

    `level`: of the interval.
    """
    if not earlier:
        return ""
    return (
        f"{describe_earlier_tests(earlier)}, and each further test adds a chance of a false verdict; the "
        f"interval has {format_level(level)} in place of 95 % for it; give new "
        "test rows for a fresh test"
    )


def count_earlier_tests(run_dir: Path, rows: str, baseline: str, best: str) -> int:
    """Return how many other comparisons the runs beside `run_dir` have made on these test rows.

    rows: as of `identify_test_rows`. baseline, best: the ids of the prompts of this run; a run that
    compared the same two prompts is a repeat of the same test and does not count. Neither does a run
    that kept its prompt, since it compared nothing.
    """
    own = run_dir.resolve()
    found = set()
    for folder in list_run_folders(own.parent):
        if folder.resolve() == own:
            continue
        try:
            with Store.read(folder) as store:
                found |= set(_list_comparisons(store, rows))
        except (ConfigError, OSError):  # a damaged run or one of another version says nothing
            continue
    return len(found - {(baseline, best)})


def list_run_folders(folder: Path) -> list[Path]:
    """Return the folders of runs in `folder`. Raises OSError where it cannot be read."""
    return sorted(path for path in folder.iterdir() if (path / database.FILE).is_file())


def _list_comparisons(store: RunReader, rows: str) -> Iterator[tuple[str, str]]:
    """Yield (baseline, best prompt) of the test of a run on these rows."""
    baseline = best = ""
    for event in store.find_events("Started", "Accepted", "Tested"):
        match event:
            case Started():
                baseline = best = event.id
            case Accepted():
                best = event.id
            case Tested() if baseline != best:
                if identify_test_rows(store.config, (id for id, _, _ in event.baseline)) == rows:
                    yield baseline, best
