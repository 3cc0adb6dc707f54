"""The content of reports: candidates, refusals, scores, the verdict.

Used by the command line and the reports, so that both show the same text. Text of models and users
is untrusted: `sanitize.make_visible` escapes characters that could hide or reorder text.
"""

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from remask.config import make_config
from remask.events import PROMPT_TOKENS, Accepted, Event, Proposed, Scored, Started, State, Tested
from remask.runs.budget import Spend, format_usd
from remask.runs.goal_results import describe_objective, list_goals
from remask.runs.result import AcceptedEdit, PromptScore, RefinedEdit, Result, compare_rows, list_changes
from remask.sanitize import hide_credentials, one_line
from remask.stats import MIN_DIFFERING_ROWS, Comparison, format_level

SELECTION = "used for selection"
IDENTITY = (
    "data_id",
    "version",
    "metric_code",
    "objective_code",
)  # what a stored configuration has beside settings
FILE_KEYS = ("data.path", "data.train", "data.validation", "data.test", "refine.traces")
METHODS = {"tango": "Tango's score interval for paired shares", "paired t": "a paired t interval"}
UNVERIFIED = (
    "unverified: no target has answered with this prompt; the edits were chosen by likelihood, "
    "which does not show that a target does better"
)
UNCHANGED = (
    "unverified: no edit made the held-out conversations clearly more probable, so there is nothing "
    "to verify; give more conversations, or more --iterations or --candidates"
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate of one round, with the scores that it has."""

    round: int  # from 1
    id: str
    masker: str
    changes: tuple[tuple[str, str], ...]  # (before, after)
    train: float | None  # mean over `train_rows`
    train_rows: int
    validation: float | None  # used for selection
    accepted: bool
    gain: float | None = None  # nats, if a likelihood ranked


@dataclass(frozen=True, slots=True)
class Point:
    """The validation score of a prompt, or one of the sealed test, and the target calls so far."""

    calls: int
    validation: float  # used for selection; of the kinds "test …" the score of the sealed test
    kind: Literal["baseline", "accepted", "kept", "test before", "test after"]


def list_candidates(state: State) -> list[Candidate]:
    """Return all candidates that the guard allowed, in the order of proposal."""
    return list(describe_candidates(state, state.proposals.values()))


def describe_candidates(state: State, proposals: Iterable[Proposed]) -> Iterator[Candidate]:
    """Yield each proposal as a candidate, when it is asked for."""
    taken = {(event.round, event.id) for event in state.accepted}
    gains = {(event.round, event.id): event.log_likelihood_gain for event in state.measured}
    for proposal in proposals:
        train = list_scores(state, proposal.id, "train")
        yield Candidate(
            round=proposal.round + 1,
            id=proposal.id,
            masker=proposal.masker,
            changes=list_changes(state, proposal),
            train=average(train),
            train_rows=len(train),
            validation=find_validation(state, proposal.id),
            accepted=(proposal.round, proposal.id) in taken,
            gain=gains.get((proposal.round, proposal.id)),
        )


def list_scores(state: State, id: str, split: str) -> list[float]:
    """Return the scores of a prompt on a split, without rows that failed."""
    return [s for s in state.scores.get((id, split), {}).values() if s is not None]


def average(scores: list[float]) -> float | None:
    return sum(scores) / len(scores) if scores else None


def count_refusals(state: State) -> list[tuple[str, int]]:
    """Return (kind of reason, distinct prompts that the guard refused for it), most first.

    The kind is the part before the colon; the quotation after it differs for nearly every prompt.
    """
    prompts = {(r.prompt, r.reason.partition(":")[0]) for r in state.refusals}
    counts = Counter(reason for _, reason in prompts)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def list_points(history: Iterable[tuple[int, Event]]) -> list[Point]:
    """Return a point for every validation score and for both prompts of the sealed test.

    history: (calls so far, event).
    """
    found: list[Point] = []
    baseline = ""
    # Most events are proposals, which have no score.
    for calls, event in [one for one in history if not isinstance(one[1], Proposed)]:
        match event:
            case Started():
                baseline = event.id
            case Scored(split="validation"):
                value = average([score for _, score, _ in event.rows if score is not None])
                if value is not None:
                    first = event.id == baseline
                    found.append(Point(calls, value, "baseline" if first else "kept"))
            case Accepted() if found:
                found[-1] = Point(found[-1].calls, found[-1].validation, "accepted")
            case Tested():
                test, _ = compare_rows(event.baseline, event.best)
                found += [Point(calls, test.baseline, "test before"), Point(calls, test.best, "test after")]
    return found


def find_validation(state: State, id: str) -> float | None:
    """Return the validation score of a prompt, if it has one."""
    return average(list_scores(state, id, "validation"))


def format_time(seconds: float) -> str:
    """Format a time in seconds since 1970 as local date and time."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def format_cost(spend: Spend) -> str:
    """Format what a run has cost in short: "1,200 calls, $0.05"."""
    return f"{spend.calls:,} calls" + (f", {format_usd(spend.usd)}" if spend.usd else "")


def format_verdict(result: Result) -> str:
    """Describe the verdict and the test score in one line."""
    test = result.test
    if test is None:
        return UNCHANGED if result.prompt == result.baseline.prompt else UNVERIFIED
    if result.refinement is not None:
        return f"{result.verdict}: {format_comparison(test)}, metric {result.refinement.metric}"
    if result.prompt == result.baseline.prompt:
        return (
            f"{result.verdict}: no better prompt was found, so the prompt is unchanged; it scores "
            f"{test.baseline:.3f} on {test.n} sealed test rows"
        )
    return f"{result.verdict}: {format_comparison(test)}{_format_goals(result)}"


def _format_goals(result: Result) -> str:
    """Describe the preferred objective, and guard sets that are not shown to hold."""
    found = [f"{o.name} {describe_objective(o)}" for o in result.objectives if o.name == result.prefer]
    found += [f"guard set {g.name} {g.status}" for g in result.guards if g.status != "held"]
    return "".join(f"; {one_line(part)}" for part in found)


def format_comparison(test: Comparison) -> str:
    line = (
        f"{test.baseline:.3f} → {test.best:.3f} on {test.n} sealed test rows, difference "
        f"{test.difference:+.3f} ({format_level(test.level)} interval {test.low:+.3f} to {test.high:+.3f})"
    )
    if test.differing < MIN_DIFFERING_ROWS and not test.low <= 0 <= test.high:
        line += f"; only {test.differing} rows differ, and a verdict needs {MIN_DIFFERING_ROWS}"
    return line


def format_against(test: Comparison) -> str:
    """Describe how a prompt compares with the prompt of --against."""
    return (
        f"{test.verdict}: {test.baseline:.3f} → {test.best:.3f} on the same {test.n} rows, difference "
        f"{test.difference:+.3f} ({format_level(test.level)} interval {test.low:+.3f} to {test.high:+.3f})"
    )


def format_selection(result: Result) -> str:
    """Describe the validation scores and that they chose the prompt."""
    before, after = format_score(result.baseline.validation), format_score(result.best.validation)
    return f"validation ({SELECTION}, not a result): {before} → {after}"


def list_facts(result: Result) -> list[str]:
    """List the facts of a finished run: how prompts were chosen, why it stopped, what it cost."""
    counts = f"; {result.candidates} candidates evaluated, {result.rejected} refused by the guard"
    found = result.refinement
    first = format_selection(result) if found is None else f"edits accepted: {len(result.edits)}"
    return [
        first,
        *list_goals(result.objectives, result.guards, result.prefer, result.within),
        *([describe_quotes(result)] if result.quoted_rows else []),
        f"Search stopped: {one_line(result.stopped)}.",
        f"spent: {format_spend(result.spend)}{'' if found else counts}",
    ]


def describe_quotes(result: Result) -> str:
    """Say how many train rows the best prompt shows word for word; "" where it shows none."""
    n = result.quoted_rows
    rows = "1 training row" if n == 1 else f"{n} training rows"
    return f"The prompt quotes {rows} with the right answers (--demos 0 turns this off)." if n else ""


def list_next_commands(result: Result) -> list[tuple[str, str]]:
    """List (command, what it does): what a user does next with a finished run."""
    run = Path(result.run_dir)
    place, folder = (shlex.quote(one_line(str(path))) for path in (run, run.parent))
    found = []
    if result.prompt != result.baseline.prompt and result.components:
        what = "write the best texts to a file; --in-place: into their own files"
        found.append((f"remask export {place} -o texts.json", what))
    elif result.prompt != result.baseline.prompt:
        found.append((f"remask export {place} -o best.md", "write the best prompt to a file"))
    if found and result.refinement is None:
        found.append((f"remask show {place} --rows lost", "see the rows that it answers worse"))
    return [*found, (f"remask view {folder}", "look at all runs of this folder")]


def format_edit_title(edit: AcceptedEdit | RefinedEdit) -> str:
    """Describe the round, the masker and the gain of an edit."""
    if isinstance(edit, AcceptedEdit):
        gain = f"{edit.validation_gain:+.3f} on validation, {SELECTION}"
        return f"round {edit.round} ({edit.masker}, {gain})"
    return f"iteration {edit.iteration} ({edit.masker}, {edit.log_likelihood_gain:+.1f} nats)"


def list_evidence(edit: AcceptedEdit | RefinedEdit, width: int) -> list[str]:
    """Return the conversations that support an edit most, one line each."""
    if isinstance(edit, AcceptedEdit):
        return [one_line(query, width) for query in edit.attributions]
    return [
        f"{one_line(one.trace, 40)} ({one.drop:.2f} nats): {one_line(one.query, width)}"
        for one in edit.attributions
    ]


def list_refinement_facts(result: Result) -> Iterable[str]:
    """Describe a refinement: the conversations and the candidates; nothing for other runs."""
    found = result.refinement
    if found is None:
        return
    seen = found.conversations
    sealed = f", {seen.sealed} sealed for the test" if seen.sealed else ""
    yield (
        f"conversations: {seen.records} records, {seen.rejected} rejected, {seen.elsewhere} of "
        f"another system prompt; {seen.read} read, {seen.held} held out to measure{sealed}"
    )
    if not seen.redacted:
        yield "redaction: OFF; secrets and personal data in the conversations were kept"
    else:
        counts = ", ".join(f"{n} {label}" for label, n in seen.secrets.items())
        yield f"redaction: on; replaced: {counts or 'nothing'}"
    yield (
        f"iterations: {found.iterations}; candidates: {result.candidates} measured, "
        f"{len(found.refused)} refused by the guard"
    )


def list_front(front: Iterable[PromptScore]) -> Iterable[str]:
    """Describe length and score of each prompt of the Pareto front, one line each."""
    return (
        f"{p.tokens} tokens, {', '.join([format_score(p.validation), *_list_values(p)])}: "
        f"{one_line(p.prompt, 90)}"
        for p in front
    )


def _list_values(found: PromptScore) -> Iterator[str]:
    """Describe the measured objectives of a prompt."""
    for name, value in found.values.items():
        if name != PROMPT_TOKENS:
            yield f"{one_line(name)} {'–' if value is None else f'{value:.4g}'}"


def format_score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def format_spend(spend: Spend) -> str:
    """Describe calls, tokens, money and time in one line. Sums of zero are left out."""
    parts = [f"{spend.calls:,} target calls"]
    if spend.uncertain:
        parts.append(f"{spend.uncertain:,} of them uncertain (interrupted, perhaps billed)")
    if spend.tokens:
        parts.append(f"{spend.input_tokens:,} + {spend.output_tokens:,} tokens")
    if spend.usd:
        parts.append(format_usd(spend.usd))
    parts.append(f"{spend.seconds / 60:.1f} minutes")
    return ", ".join(parts)


def format_edit(pairs: Iterable[tuple[str, str]], width: int = 0) -> str:
    """Format all edits of a candidate as before → after."""
    return "; ".join(
        f"{one_line(before, width) or '(nothing)'} → {one_line(after, width) or '(deleted)'}"
        for before, after in pairs
    )


def name_target(config: Mapping[str, Any]) -> str:
    """Return the target of a run; "" for a refinement without one."""
    refine = config.get("refine")
    if refine and not refine.get("verify"):
        return ""
    return str((config.get("target") or {}).get("model", ""))


def name_data(config: Mapping[str, Any]) -> str:
    """Return a short name of the data of a run."""
    data, task, refine = (config.get(key) or {} for key in ("data", "task", "refine"))
    if refine:
        return _name_files(refine.get("traces") or ())
    if task.get("name"):
        return str(task["name"])
    if data.get("queries"):
        return f"{data['queries']} messages of the target"
    files = [data[key] for key in ("path", "train", "validation", "test") if data.get(key)]
    return _name_files(files) or "rows in memory"


def _name_files(files: Any) -> str:
    names = [Path(str(file)).name for file in files]
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def list_parts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a run is made of, by name: target, denoiser, data and budget."""

    def find(section: str, key: str) -> Any:
        values = config.get(section)
        return values.get(key) if isinstance(values, Mapping) else None

    limits = [
        f"{find('budget', key):,}".removesuffix(".0") + f" {key}"
        for key in ("calls", "tokens", "minutes")
        if find("budget", key)
    ]
    usd = find("budget", "usd")
    found = {
        "Target": name_target(config),
        "Denoiser": find("denoiser", "model"),
        "Data": name_data(config),
        "Budget": ", ".join([*limits, *([format_usd(usd)] if usd else [])]),
    }
    return [(name, str(value)) for name, value in found.items() if value]


def suggest_next(result: Result) -> str:
    """Say what to try after a run that accepted no edit."""
    if result.refinement is not None:
        return "Try next: more conversations, or more --iterations or --candidates."
    return (
        "Try next: a larger budget, a metric that says what is wrong with an answer, a stronger denoiser, "
        "or more validation rows, which show smaller gains."
    )


def describe_test(test: Comparison) -> str:
    """Say how the two prompts were compared."""
    return (
        "Both prompts were scored once on the same rows, which were not used in the search. Their scores "
        f"differ on {test.differing} of {test.n} rows. Method: {METHODS[test.method]}, "
        f"with a two-sided {format_level(test.level)} interval."
    )


def list_costs(spend: Spend, config: Mapping[str, Any], result: Result | None) -> list[tuple[str, str]]:
    """Return what was spent, by name, each with its limit where it has one."""
    limits = config.get("budget")
    limits = limits if isinstance(limits, Mapping) else {}

    def add_limit(said: str, limit: str) -> str:
        return f"{said} of {limit}" if limit else said

    calls = add_limit(f"{spend.calls:,}", f"{limits['calls']:,}" if limits.get("calls") else "")
    if spend.uncertain:
        calls += f", {spend.uncertain:,} of them uncertain (interrupted, perhaps billed)"
    tokens = f"{spend.input_tokens:,} + {spend.output_tokens:,}"
    minutes_limit = f"{limits['minutes']:g}" if limits.get("minutes") else ""
    found = [("Target calls", calls)]
    if spend.tokens:
        tokens_limit = f"{limits['tokens']:,}" if limits.get("tokens") else ""
        found.append(("Tokens (input + output)", add_limit(tokens, tokens_limit)))
    if spend.usd or limits.get("usd"):
        limit = format_usd(limits["usd"]) if limits.get("usd") else ""
        found.append(("Dollars", add_limit(format_usd(spend.usd), limit)))
    found.append(("Minutes", add_limit(f"{spend.seconds / 60:.1f}", minutes_limit)))
    if result is not None:
        refused = f"{result.candidates} evaluated, {result.rejected} refused by the guard"
        found += [("Candidates", refused), ("Search stopped", result.stopped)]
    return found


def split_settings(config: Mapping[str, Any]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the settings that differ from the defaults, and all others."""
    usual = dict(list_settings(make_config({"prompt": "-"}, "defaults").model_dump(mode="json")))
    found = [(key, _shorten(key, value)) for key, value in list_settings(config)]
    given = [pair for pair in found if usual.get(pair[0]) != pair[1] and pair[0] not in IDENTITY]
    return given, [pair for pair in found if pair not in given]


def _shorten(key: str, value: str) -> str:
    """Leave the folders of files out, since reports are sent to others."""
    if key not in FILE_KEYS:
        return value
    return ", ".join(Path(file).name for file in value.split(", "))


def list_settings(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return (key, value) pairs of a stored configuration, without the prompt and unset keys.

    A configuration contains the name of an API key's variable, not the key. Credentials in a URL
    are removed here.
    """
    found: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            found += list_settings(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for number, one in enumerate(value, 1):
                found += list_settings(one, f"{prefix}{key}.{number}.")
        elif key == "base_url" and value:
            found.append((f"{prefix}{key}", hide_credentials(str(value))))
        elif key != "prompt" and value not in (None, "", (), []):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            found.append((f"{prefix}{key}", shown))
    return found
