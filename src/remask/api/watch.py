"""`watch` of the public API: read new conversations, say whether they have drifted, propose a prompt.

One call is one night. It reads what is new into the state, compares the newest conversations with
those of the reference, and where they have drifted runs `optimize` (the configuration has rows or a
task) or `refine` (conversations alone) into a folder of proposals. It changes neither the prompt file
nor anything else outside of that folder and the state.

Each step is stored before the next begins, so a call after a kill goes on where the last one was: a
reading counts as a whole or not at all, a comparison is stored with its decision, and a run that was
begun is resumed with what is left of its budget.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from os.path import relpath
from pathlib import Path
from typing import Any

import orjson

from remask.api.arguments import settle_arguments
from remask.api.awaitable import make_async
from remask.api.build_models import Respond
from remask.api.build_task import Given
from remask.api.job import Hooks, OnEvent, add_callback
from remask.api.optimize import resume_run, start_run
from remask.api.refine import make_refine_config
from remask.api.show_progress import open_progress
from remask.config import Config, WatchConfig, make_config, merged
from remask.data.formats.chat import record_to_chat
from remask.data.json_stream import check_file
from remask.data.parts import Download
from remask.data.prompt_templates import make_similarity
from remask.data.prompt_traces import read_traces
from remask.data.ratings import parse_scales
from remask.data.redact.redact import Placeholders, redact_text
from remask.data.servers import name_server, read_server
from remask.data.tables import parse_column_map
from remask.data.trace_reader import NO_RECORDS, find_files, read_records
from remask.data.trace_record import Record, RejectedRecord
from remask.errors import ConfigError, DataError
from remask.files import is_server, parse_toml, read_toml, write
from remask.ids import content_id
from remask.ports import DenoiserModel
from remask.prompt import Prompt
from remask.propose.failure_modes import group_failures
from remask.runs.database import FILE
from remask.runs.drift import DriftTest, compare_failures, compare_inputs
from remask.runs.report.proposal import describe_test, write_proposal
from remask.runs.report.read_run import view_run
from remask.runs.result import Result
from remask.runs.watch_state import Arrival, Look, WatchState
from remask.sanitize import one_line
from remask.tasks.promptfoo import METRIC, is_config
from remask.types import Trace

MIN_NEW = 50  # conversations behind the reference, below which nothing is compared
FIRST_DAYS = 30  # of a server that was never read
MAX_KINDS = 3  # kinds of failure that are named
MAX_QUOTE = 120  # characters
MAX_REASON = 400
CONVERSATIONS = "conversations.jsonl"  # in a proposal of `refine`
PROPOSED, NOTHING_BETTER = 6, 7  # exit codes


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """What a configuration says about a watch, with its defaults."""

    run: Config  # of the run that makes a proposal; `refine.traces` is filled in later
    watch: WatchConfig
    traces: tuple[str, ...]
    columns: tuple[str, ...]
    scales: tuple[str, ...]
    redact: bool
    base: Path  # folder of the configuration
    prompt_file: Path
    state: Path
    proposals: Path
    given: Given  # objects in place of models of the file


@dataclass(frozen=True, slots=True)
class Night:
    """What one call of `watch` has found and done."""

    new: int = 0  # conversations that were counted now
    grown: int = 0  # known ones with more turns or ratings than before
    elsewhere: int = 0  # of another system prompt
    rejected: int = 0  # values that are no usable record
    counted: int = 0  # all conversations so far
    missing: int = 0  # until a comparison can be made
    tests: tuple[DriftTest, ...] = ()
    kinds: tuple[str, ...] = ()  # lines about the most frequent kinds of failure
    proposal: str = ""  # folder, where one was made or would be
    result: Result | None = None  # of the run that made it
    notes: tuple[str, ...] = ()

    @property
    def drifted(self) -> bool:
        """Whether anything has drifted."""
        return any(test.drifted for test in self.tests)

    @property
    def exit_code(self) -> int:
        """0: nothing to do; 6: a proposal is ready; 7: drift, but no better prompt was found."""
        if self.result is None:
            return 0
        return PROPOSED if self.proposal else NOTHING_BETTER


def watch(
    config: str | Path = "remask.toml",
    *,
    dry_run: bool = False,
    target: Respond | None = None,
    denoiser: DenoiserModel | None = None,
    on_event: OnEvent | None = None,
    progress: bool | None = None,
    now: datetime | None = None,
) -> Night:
    """Read new conversations, compare them with the reference, and propose a prompt after a drift.

    config: a remask.toml whose sections `[watch]` and `[refine]` say what is read. dry_run: read and
    compare, but write nothing and run nothing. target, denoiser: objects in place of those of the
    file. now: the time of the call, by which days are counted. The other arguments are those of
    `optimize`.

    Raises ConfigError, DataError and BackendError for wrong settings, files and servers, RunBusy
    where another process watches, and the errors of `optimize` and `refine`; the next call goes on.

    >>> import json, pathlib, remask
    >>> turns = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi."}]
    >>> written = pathlib.Path("log.jsonl").write_text(json.dumps({"id": 1, "messages": turns}))
    >>> written = pathlib.Path("prompt.md").write_text("Help customers.")
    >>> settings = 'prompt = "prompt.md"\\n[watch]\\ntraces = "log.jsonl"\\n'
    >>> written = pathlib.Path("remask.toml").write_text(settings)
    >>> night = remask.watch()
    >>> night.new, night.missing, night.exit_code
    (1, 349, 0)
    """
    settings = load_settings(Path(config), target, denoiser)
    with open_progress(progress, add_callback(Hooks(), on_event), str(config)) as hooks:
        return watch_once(settings, hooks, dry_run, now)


def load_settings(
    path: Path, target: Respond | None = None, denoiser: DenoiserModel | None = None
) -> WatchSettings:
    """Read and check a configuration. Raises ConfigError and DataError."""
    values, base = read_toml(path), path.resolve().parent
    values.pop("run_dir", None)
    name = parse_toml(path).get("prompt")
    if not name or "prompt_from" in values:
        raise ConfigError(f'{path}: watch needs a prompt file; write prompt = "FILE"')
    data, metric, refine, section = (values.get(key, {}) for key in ("data", "metric", "refine", "watch"))
    if all(isinstance(some, dict) for some in (data, metric, refine, section)):
        if is_config(str(data.get("path", ""))):
            values["metric"] = {"name": METRIC, **metric}
        if section.get("traces"):
            values["refine"] = {"traces": section["traces"], **refine}
    objects, given = settle_arguments("-", data=None, target=target, metric=None, denoiser=denoiser, more={})
    kept = {"target": target, "denoiser": denoiser}
    values = merged(values, {key: objects[key] for key, value in kept.items() if value is not None})
    config = make_config(values, str(path))
    watch, refine, data = config.watch or WatchConfig(), config.refine, config.data
    if refine is None:
        raise ConfigError(f"{path}: no conversations are named; give traces in [watch] or in [refine]")
    has_rows = any((data.path, data.train, data.validation, data.test, data.queries, config.task.name))
    run = config if has_rows else make_refine_config(values, str(path))
    run = run.model_copy(
        update={
            "refine": None if has_rows else run.refine,
            "budget": watch.budget or config.budget,
            "watch": None,
        }
    )
    return WatchSettings(
        run, watch, watch.traces or refine.traces, refine.columns, refine.scales, refine.redact,
        base, base / name, base / watch.state, base / watch.proposals, given,
    )  # fmt: skip


def watch_once(
    settings: WatchSettings, hooks: Hooks, dry_run: bool = False, now: datetime | None = None
) -> Night:
    """Watch one night with settings that were read."""
    now = (now or datetime.now(UTC)).astimezone(UTC)
    if settings.proposals.exists() and not settings.proposals.is_dir():
        raise ConfigError(f"{settings.proposals} is a file; name a folder as [watch] proposals")
    with (WatchState.copy if dry_run else WatchState.open)(settings.state) as state:
        _require_own(settings, state)
        night = _read_new(settings, state, now)
        look = state.last_look()
        if look is None or not look.pending:
            night = _compare(settings, state, night, now.date().isoformat(), dry_run)
            look = state.last_look() if night.drifted else None
        else:
            night = replace(night, notes=(*night.notes, f"the proposal of {look.day} is not finished yet"))
        if look is None or not look.pending:
            return night
        night = replace(night, proposal=str(settings.proposals / look.body["name"]))
        return night if dry_run else _propose(settings, state, night, look, hooks)


def _require_own(settings: WatchSettings, state: WatchState) -> None:
    """Raise ConfigError for the state of another prompt file, as of a second agent in the same folder."""
    known, name = state.meta("prompt_file"), settings.prompt_file.name
    if known not in ("", name):
        raise ConfigError(
            f"{settings.state} is the state of the prompt {known}, not of {name}; give this configuration "
            "another [watch] state, or move the file away to begin with a new reference"
        )


# --- reading


def _read_new(settings: WatchSettings, state: WatchState, now: datetime) -> Night:
    """Store all conversations that can be read; all of them, or none where reading fails."""
    belongs = make_similarity(Prompt.parse(settings.run.prompt).text)
    counts: Counter[str] = Counter()
    copies: Counter[int] = Counter()
    notes: list[str] = []
    with state.change():
        for item in _read_items(settings, state, now, notes):
            system = item.template or item.system if isinstance(item, Record) else None
            if isinstance(item, RejectedRecord):
                if item.reason == NO_RECORDS:  # an empty file, as a log is after a rotation
                    continue
                counts["rejected"] += 1
                if counts["rejected"] == 1:
                    where = item.path if item.line is None else f"{item.path}:{item.line}"
                    said = one_line(f"{where}: {item.reason}", MAX_REASON)
                    notes.append(f"the first value that is no usable record: {said}")
            elif system and not belongs(system):
                counts["elsewhere"] += 1
            else:
                counts[state.add(_describe_arrival(item, settings.redact, copies))] += 1
        if counts["elsewhere"] and not counts.keys() & {"new", "grown", "known"}:
            notes.append(f"all conversations have another system prompt than {settings.prompt_file.name}")
        if note := _notice_prompt(settings, state):
            notes.append(note)
    return Night(
        new=counts["new"], grown=counts["grown"], elsewhere=counts["elsewhere"], rejected=counts["rejected"],
        counted=state.count, notes=tuple(notes),
    )  # fmt: skip


def _read_items(
    settings: WatchSettings, state: WatchState, now: datetime, notes: list[str]
) -> Iterator[Record | RejectedRecord]:
    first = not state.count
    if files := _find_logs(settings, first, notes):
        try:
            yield from read_records(files, parse_column_map(settings.columns))
        except ConfigError as error:  # a column that no record has now, though earlier ones had it
            if first:
                raise
            notes.append(str(error))
    for place in filter(is_server, settings.traces):
        name = name_server(place)
        before = state.read_to(name)
        late = timedelta(days=FIRST_DAYS if before is None else settings.watch.late_days)
        # A clock that has gone back neither reads years again nor leaves out what comes next.
        last = now.timestamp() if before is None else before
        since = min(now, datetime.fromtimestamp(last, UTC)) - late
        for part in read_server(place, settings.watch.experiment, since, now):
            yield from read_records([part])
        state.set_read_to(name, max(last, now.timestamp()))


def _find_logs(settings: WatchSettings, first: bool, notes: list[str]) -> list[Path]:
    """Return the files that are there. After the first night they may all have been moved away."""
    found: list[Path] = []
    for place in (place for place in settings.traces if not is_server(place)):
        try:
            files = find_files([place])
            for file in files:
                check_file(file)
            found += files
        except DataError as error:
            if first:
                raise
            notes.append(str(error))
    return found


def _describe_arrival(record: Record, redact: bool, copies: Counter[int]) -> Arrival:
    """Return a conversation with the key by which it is known when it is read again.

    The key is the thread that a tracing tool gives; else the id with the first message, since some
    files number their rows; else the content, with the number of equal ones before it in its file.
    What such a conversation was before its last turns has a key, too.
    """
    first = next((turn.text for turn in record.turns if turn.role == "user"), "")
    if record.thread:
        keys = [content_id("conversation", record.thread)]
    elif record.id:
        keys = [content_id("conversation", record.id, first)]
    else:
        keys, text = [], content_id("turns", record.session)
        for number, turn in enumerate(record.turns, 1):
            text = content_id("turns", text, turn.role, turn.text)
            if turn.role == "assistant" or number == len(record.turns):
                place = int(content_id("copies", record.source.path, text)[:15], 16)  # a text takes more room
                copies[place] += 1
                keys.append(f"{text}.{copies[place]}")
        if not keys:  # a right answer without a turn
            keys = [content_id("conversation", text, str(record.desired))]
    ratings = [[r.name, r.value, r.comment, r.correction] for r in record.ratings]
    marks = {content_id("rating", *rating) for rating in ratings}
    if record.desired is not None:
        marks.add(content_id("desired", record.desired))

    def make_body() -> dict[str, Any]:
        placeholders = Placeholders()
        clean: Callable[[str], str] = (lambda text: redact_text(text, placeholders)) if redact else str
        # The system prompt is that of the file, and no trace contains it.
        body = record_to_chat(replace(record, system=None), clean)
        session = {"session_id": content_id("session", record.session)} if record.session else {}
        return {**body, **session}

    *forms, key = keys
    return Arrival(key, len(record.turns), frozenset(marks), make_body, tuple(reversed(forms)))


def _notice_prompt(settings: WatchSettings, state: WatchState) -> str:
    """Begin a reference: of the newest conversations at first, of the next ones after a new prompt."""
    prompt, known = content_id("prompt", settings.run.prompt), state.meta("prompt")
    if prompt == known:
        return ""
    start = state.count + 1 if known else max(1, state.count - settings.watch.window + 1)
    look = state.last_look()
    if look is not None and look.pending:
        state.finish_look(look, outcome="the prompt was changed")
    state.set_meta(prompt=prompt, start=start, prompt_file=settings.prompt_file.name)
    return "the prompt has changed, so a new reference begins with the next conversations" if known else ""


# --- comparing


def _compare(settings: WatchSettings, state: WatchState, night: Night, day: str, dry_run: bool) -> Night:
    """Compare the newest conversations with the reference, at most once a day, and store the look."""
    window, start, count = settings.watch.window, state.start, state.count
    ends = start + window - 1  # of the reference
    begins = max(ends + 1, count - window + 1)  # of the new ones
    missing = max(0, ends + MIN_NEW - count)
    if missing:
        return replace(night, missing=missing)
    last = state.last_look()
    if last is not None and last.day == day and not dry_run:
        return replace(night, notes=(*night.notes, "conversations are compared once a day, and were today"))
    reference, new = state.bodies(start, ends), state.bodies(begins, count)
    tests, kinds, notes = _test(settings, reference, new)
    night = replace(night, tests=tests, kinds=kinds, notes=(*night.notes, *notes))
    body = {
        "tests": [asdict(test) for test in tests], "kinds": kinds, "first": begins, "last": count,
        "name": _choose_name(settings.proposals, day),
    }  # fmt: skip
    with state.change():
        state.add_look(day, body, pending=night.drifted)
        state.forget(1, start - 1)
        state.forget(ends + 1, begins - 1)
    return night


def _test(
    settings: WatchSettings, reference: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[tuple[DriftTest, ...], tuple[str, ...], list[str]]:
    """Return both tests, lines about the kinds of failure, and notes."""
    bodies = [{**body, "id": key} for key, body in {**reference, **new}.items()]
    rated = {note["name"] for body in bodies for note in body.get("feedback") or ()}
    scales = [
        f"{name}={worst!r}..{best!r}"
        for name, (worst, best) in parse_scales(settings.scales).items()
        if name in rated
    ]
    prompt = Prompt.parse(settings.run.prompt).text
    found = read_traces(prompt, [Download("conversations", bodies)], (), scales, redact=False)
    before = [trace for trace in found.traces if trace.id in reference]
    after = [trace for trace in found.traces if trace.id in new]
    notes = [note for note in found.notes if "system prompt" not in note]
    rate = settings.watch.alarm_rate
    failures = compare_failures(before, after, rate)
    if isinstance(failures, str):
        notes.append(f"failures are not compared: {failures}")
        tests = [compare_inputs(before, after, rate)]
    else:
        tests = [failures, compare_inputs(before, after, rate)]
    return tuple(tests), tuple(_list_kinds(after)), notes


def _list_kinds(traces: Sequence[Trace]) -> Iterator[str]:
    """Yield a line about each of the most frequent kinds of failure."""
    modes = group_failures(traces).mode_of
    counts = Counter(modes.values()).most_common(MAX_KINDS)
    for mode, count in counts:
        trace = next(trace for trace in traces if modes.get(trace.id) == mode)
        said = one_line(trace.explanation or trace.response, MAX_QUOTE)
        yield f"{count} × {one_line(trace.query, MAX_QUOTE)!r}: {said!r}"


def _choose_name(folder: Path, day: str) -> str:
    number, name = 1, day
    while (folder / name).exists():
        number += 1
        name = f"{day}-{number}"
    return name


# --- proposing


def _propose(settings: WatchSettings, state: WatchState, night: Night, look: Look, hooks: Hooks) -> Night:
    """Make the run of a look, or finish it, and leave its files. The look is done only then."""
    folder, config = settings.proposals / look.body["name"], settings.run
    first, last = look.body["first"], look.body["last"]
    if (folder / FILE).exists():
        try:
            result = resume_run(folder, settings.given, hooks, config.run)
        except ConfigError as error:
            raise ConfigError(f"{error}; or delete {folder}, and its run begins again") from None
    else:
        if config.refine is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"the folder {folder} cannot be made ({error.strerror})") from None
            lines = map(orjson.dumps, state.bodies(first, last).values())
            write(folder / CONVERSATIONS, b"".join(line + b"\n" for line in lines), force=True)
            refine = config.refine.model_copy(
                update={"traces": (str(folder / CONVERSATIONS),), "columns": (), "redact": False}
            )
            config = config.model_copy(update={"refine": refine})
        # Another look at the same rows is to try other candidates.
        config = config.model_copy(update={"seed": config.seed + look.n - 1})
        result = start_run(config, settings.given, folder, hooks)
    tests = tuple(DriftTest(**test) for test in look.body["tests"])
    ready = result.prompt != result.baseline.prompt and result.verdict in ("improved", "unverified")
    if ready:
        before = settings.prompt_file.read_bytes().decode("utf-8-sig")
        ending = before[len(before.rstrip("\r\n")) :]
        run = view_run(folder).state
        after = run.prompt(run.incumbent).to_source() + ending
        place = Path(relpath(settings.prompt_file, settings.base)).as_posix()
        why, kinds = map(describe_test, tests), look.body["kinds"]
        write_proposal(folder, result, before, after, place, list(why), kinds)
    with state.change():
        state.finish_look(look, outcome=result.verdict, ready=ready)
        state.set_meta(start=first)
    return replace(
        night,
        tests=tests,
        kinds=tuple(look.body["kinds"]),
        result=result,
        proposal=str(folder) if ready else "",
    )


watch_async = make_async(watch)
