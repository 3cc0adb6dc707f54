"""Compare two runs: settings, cost, prompts, and the test rows that both have scored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from remask.events import Tested
from remask.runs.budget import Spend
from remask.runs.outcomes import RowResult
from remask.runs.report import summary
from remask.runs.report.read_run import RunView
from remask.runs.reused_rows import identify_metric
from remask.runs.word_diff import Change, diff
from remask.stats import Comparison, compare, correct_level

NO_VERDICT = "no verdict yet"


@dataclass(frozen=True, slots=True)
class SettingPair:
    """A setting that differs between two runs; "" where a run does not have it."""

    key: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class RunsComparison:
    """Two runs side by side. All text is untrusted."""

    settings: tuple[SettingPair, ...]  # only those that differ
    same_start: bool  # whether both runs began with the same prompt
    verdicts: tuple[str, str]
    spend: tuple[Spend, Spend]
    prompts: tuple[str, str]  # the best prompts so far; "" where a run has none yet
    tokens: tuple[int, int]  # their lengths, as the denoiser counts
    prompt_diff: tuple[Change, ...]  # from the first run's best prompt to the second's
    shared_rows: int  # test rows that both runs have scored
    test: Comparison | None  # of the best prompts on these rows; baseline: the first run's
    reason: str  # why there is no comparison; "" where there is one
    rows: tuple[RowResult, ...]  # shared test rows: before: the first run's best prompt
    notes: tuple[str, ...]  # what makes the comparison doubtful

    @property
    def flipped(self) -> tuple[RowResult, ...]:
        """The rows with other scores in the second run."""
        return tuple(row for row in self.rows if row.change in ("won", "lost"))


def compare_runs(a: RunView, b: RunView) -> RunsComparison:
    """Compare two runs, finished or not."""
    scores_a, scores_b = _list_best_scores(a.state.tested), _list_best_scores(b.state.tested)
    pairs = {id: (scores_a[id], scores_b[id]) for id in scores_a if id in scores_b}
    both = [(x, y) for x, y in pairs.values() if x is not None and y is not None]
    reason = _find_obstacle(a, b, len(pairs), len(both))
    test = None
    if not reason:
        level = correct_level(_count_tests(a.state.tested, b.state.tested))
        test = compare([x for x, _ in both], [y for _, y in both], level)
    prompts = _get_best(a), _get_best(b)
    return RunsComparison(
        settings=tuple(list_setting_pairs(a.config, b.config)),
        same_start=a.config.get("prompt") == b.config.get("prompt"),
        verdicts=(_format_verdict(a), _format_verdict(b)),
        spend=(a.spend, b.spend),
        prompts=prompts,
        tokens=(_count_tokens(a), _count_tokens(b)),
        prompt_diff=diff(*prompts),
        shared_rows=len(pairs),
        test=test,
        reason=reason,
        rows=_pair_rows(a, b, pairs.keys()) if not reason else (),
        notes=tuple(_list_notes(a, b, len(pairs) - len(both))) if test else (),
    )


def list_setting_pairs(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[SettingPair]:
    """Return the settings that differ, in the order of the first configuration."""
    first, second = dict(summary.list_settings(a)), dict(summary.list_settings(b))
    return [
        SettingPair(key, first.get(key, ""), second.get(key, ""))
        for key in dict.fromkeys([*first, *second])
        if first.get(key, "") != second.get(key, "")
    ]


def _list_best_scores(tested: Tested | None) -> dict[str, float | None]:
    return {} if tested is None else {id: score for id, score, _ in tested.best}


def _find_obstacle(a: RunView, b: RunView, shared: int, scored: int) -> str:
    """Return why the best prompts cannot be compared on test rows, in a sentence without a stop."""
    for name, run in (("first", a), ("second", b)):
        if run.state.tested is None:
            return f"the {name} run has no sealed test" + (" yet" if run.result is None else "")
    if not shared:
        return "the runs share no test rows"
    if identify_metric(a.config) != identify_metric(b.config):
        names = [str((run.config.get("metric") or {}).get("name", "")) for run in (a, b)]
        kinds = f": {names[0]} and {names[1]}" if names[0] != names[1] else " in their settings"
        return f"the metrics differ{kinds}"
    return "" if scored else "no shared test row has a score in both runs"


def _count_tests(a: Tested | None, b: Tested | None) -> int:
    """Return how many tests have used the rows before: at least those of the two runs."""
    earlier = [event.earlier_tests for event in (a, b) if event is not None]
    return max(2, 1 + max(earlier, default=0))


def _list_notes(a: RunView, b: RunView, missing: int) -> list[str]:
    notes = ["both runs have used these rows before, so the interval is wider than that of one test"]
    if missing:
        notes.append(f"{missing} shared test rows have no score in one of the runs and were left out")
    models = [str((run.config.get("target") or {}).get("model", "")) for run in (a, b)]
    if models[0] != models[1]:
        notes.append("the targets differ, so the scores compare prompt and target together")
    return notes


def _pair_rows(a: RunView, b: RunView, shared: Any) -> tuple[RowResult, ...]:
    """Return the shared test rows whose answers both runs have kept."""
    others = {row.id: row for row in b.rows if row.split == "test"}
    return tuple(
        RowResult(
            row.id, "test", row.place, row.message, row.expected,
            before=row.after, after=others[row.id].after,
        )
        for row in a.rows
        if row.split == "test" and row.id in shared and row.id in others
    )  # fmt: skip


def _get_best(run: RunView) -> str:
    return run.state.prompt(run.state.incumbent).text if run.state.incumbent else ""


def _count_tokens(run: RunView) -> int:
    return run.state.tokens.get(run.state.incumbent, 0)


def _format_verdict(run: RunView) -> str:
    return NO_VERDICT if run.result is None else summary.format_verdict(run.result)
