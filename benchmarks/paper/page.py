"""The figures of the paper beside those of runs: in the terminal, and on the page about the paper."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.paper.data import CLASSIFICATION
from benchmarks.paper.experiment import ON_THIS_MACHINE
from benchmarks.record import DOCS, RESULTS, read_json, write_blocks
from remask.stats import LEVEL, format_level

FIGURES = RESULTS / "paper.json"
PAGE = DOCS / "background" / "paper.md"
PAPER_TARGET = "GPT-4o-mini"
# Success rates as a third party lists them (wizwand); rows, intervals and baselines are not known.
PAPER = {"sst2": 97, "sst5": 67, "snli": 93, "mrpc": 69, "tau2_airline": 50, "tau2_retail": 46}
TITLES = {
    "sst2": "SST-2",
    "sst5": "SST-5",
    "snli": "SNLI",
    "mrpc": "MRPC",
    "tau2_airline": "τ²-bench, airline",
    "tau2_retail": "τ²-bench, retail",
}
Record = Mapping[str, Any]
NOTHING_RUN = "No run has been recorded yet."


def describe_run(record: Record) -> Iterator[str]:
    """Yield the lines of a run for the terminal: the paper's figure, both scores, the verdict."""
    task = record["task"]
    steps = "" if record["steps"] is None else f", {record['steps']} denoising steps"
    models = f"target {name_target(record)}, denoiser {record['denoiser']}{steps}"
    yield f"{TITLES[task]}: {models}, seed {record['seed']}"
    yield f"  {'the paper, ' + PAPER_TARGET:24}{PAPER[task]:5.1f}   rows, interval and baseline not known"
    yield f"  {'the seed prompt':24}{format_score(record['before'])}"
    if "after" not in record:
        return
    yield f"  {'the prompt at the end':24}{format_score(record['after'])}"
    verdict = (
        f"  {record['verdict']}: {format_gain(record)}" if record["changed"] else "  the prompt is unchanged"
    )
    yield (
        f"{verdict}; {record['spent']:,} of {record['calls']:,} calls, {record['candidates']} candidates, "
        f"{record['examples']} examples shown, {record['seconds'] / 60:.1f} minutes"
    )


def name_target(record: Record) -> str:
    """Return the target, and how it answers where it could choose a label."""
    local = record["target"].partition(":")[0] in ON_THIS_MACHINE and record["task"] in CLASSIFICATION
    return record["target"] + ((", own words" if record["own_words"] else ", forced choice") if local else "")


def format_score(found: Record) -> str:
    """A score in points, with its 95 % interval and the number of rows."""
    mean, low, high = (100 * found[key] for key in ("mean", "low", "high"))
    return f"{mean:5.1f}   95 % interval {low:.1f} to {high:.1f}, n = {found['n']}"


def format_gain(record: Record) -> str:
    """The difference in points with the interval of the verdict."""
    gain, low, high = (100 * record[key] for key in ("difference", "low", "high"))
    level = "95 %" if record["level"] == LEVEL else format_level(record["level"])
    return f"{gain:+.1f} points ({level} interval {low:+.1f} to {high:+.1f})"


def write_page() -> str:
    """Write the tables of the page from the recorded runs; returns them."""
    records = read_json(FIGURES)["runs"] if FIGURES.exists() else []
    runs = [record for record in records if "after" in record]
    parts = [format_runs(runs), format_scored([record for record in records if "after" not in record])]
    block = "\n\n".join(filter(None, parts)) or NOTHING_RUN
    write_blocks(PAGE, {"paper_runs": block})
    return block


HEAD = (
    *("Task", "The paper", "Target", "Denoiser", "Steps", "Seed", "Calls", "Test rows"),
    *("Seed prompt", "Prompt at the end", "Difference", "Verdict", "Accepted changes", "Examples shown"),
)


def format_runs(runs: Sequence[Record]) -> str:
    """The table of optimisations; "" without any."""
    if not runs:
        return ""
    rows = [
        (
            TITLES[run["task"]],
            str(PAPER[run["task"]]),
            name_target(run),
            run["denoiser"],
            "default" if run["steps"] is None else str(run["steps"]),
            str(run["seed"]),
            f"{run['calls']:,}",
            str(run["after"]["n"]),
            _format_cell(run["before"]),
            _format_cell(run["after"]),
            format_gain(run).replace(" points", "") if run["changed"] else "prompt unchanged",
            run["verdict"],
            str(run["edits"]),
            str(run["examples"]),
        )
        for run in runs
    ]
    return _format_table(HEAD, rows)


def format_scored(scored: Sequence[Record]) -> str:
    """The table of seed prompts that were only scored; "" without any."""
    if not scored:
        return ""
    head = (
        "Task",
        "The paper",
        "Target",
        "Exchanges at most",
        "Samples",
        "Seed prompt",
        "Calls",
        "Calls of tools",
    )
    rows = [
        (
            TITLES[one["task"]],
            str(PAPER[one["task"]]),
            name_target(one),
            str(one["message_limit"] or "no limit"),
            str(one["before"]["n"]),
            _format_cell(one["before"]),
            str(one["spent"]),
            str(one.get("tool_calls", "not counted")),
        )
        for one in scored
    ]
    return "The seed prompt alone, without a search:\n\n" + _format_table(head, rows)


def _format_cell(found: Record) -> str:
    mean, low, high = (100 * found[key] for key in ("mean", "low", "high"))
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"


def _format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))
