"""How far a run is: one value, folded from its events and from the steps of its work.

Everything that shows a run while it runs draws this value: the panel of a terminal, plain lines, JSON
and the display of a notebook. A Follower computes it; it measures the times from which it estimates
what is left, and never changes a result.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from remask import events
from remask.events import Event, State
from remask.ports import HELD, WAITING
from remask.runs.budget import Limits, Spend
from remask.runs.report.read_run import RunView
from remask.runs.report.summary import list_scores
from remask.stats import Estimate, estimate

# What a step is -> the plural of its name. Any other name of a step is that of a phase of its own.
UNITS = {
    "call": "calls",
    "reply": "calls",
    "answer": "calls",
    "token": "tokens",
    "token scored": "tokens scored",
    "text": "texts measured",
    "row": "rows graded",
    "record": "records",
    "candidate": "candidates",
    "denoising step": "denoising steps",
    "training step": "training steps",
    "prompt": "prompts measured",
}
DENOISING = ("denoising step", "candidate", "text", "token scored")
PARTS = "parts"  # of a phase that names itself, such as loading
WRITING = "the denoiser writes candidates"
IN_A_CALL = ("reply", "answer")  # they count the calls of one request, of which "call" has the sum


@dataclass(frozen=True, slots=True)
class Workload:
    """What a run may have to do: from its plan, and from a timed sample of its models."""

    rounds: int  # at most
    patience: int  # the search stops after so many rounds without an accepted edit
    first_calls: int  # before the first round
    round_calls: int  # of a round, at most
    test_calls: int
    candidates: int  # of a round
    limits: Limits
    seconds_per_call: float | None = None  # of a sample; None: unknown
    seconds_per_round: float | None = None  # of denoising, of a sample; None: unknown

    def count_rounds(self, done: int, last_gain: int, calls_left: int | None) -> int:
        """Return after about how many rounds the search ends: no gain, the plan or no calls left.

        done: rounds so far. last_gain: rounds up to the last accepted edit. calls_left: for the
        search; None: no limit.
        """
        likely = min(self.rounds, max(last_gain + self.patience, done))
        if calls_left is not None and self.round_calls:
            likely = min(likely, done + max(0, math.ceil(calls_left / self.round_calls)))
        return likely

    def count_all_rounds(self, last_gain: int = 0) -> int:
        """Return the rounds of a whole run whose last accepted edit is that of round `last_gain`."""
        left = None
        if self.limits.calls is not None:
            left = self.limits.calls - self.first_calls - self.test_calls
        return self.count_rounds(0, last_gain, left)

    def count_calls(self, rounds: int) -> int:
        """Return the calls of a whole run of so many rounds, at most."""
        calls = self.first_calls + rounds * self.round_calls + self.test_calls
        return calls if self.limits.calls is None else min(calls, self.limits.calls)

    def count_seconds(self, calls: int, rounds: int) -> float | None:
        """Return how long so many calls and rounds take, with denoising; None where a part is unknown."""
        if self.seconds_per_round is None or (calls and self.seconds_per_call is None):
            return None
        return rounds * self.seconds_per_round + calls * (self.seconds_per_call or 0.0)

    def estimate_seconds(self) -> float | None:
        """Estimate how long a whole run takes within its limits; None where a part is unknown."""
        rounds = self.count_all_rounds()
        seconds, minutes = self.count_seconds(self.count_calls(rounds), rounds), self.limits.minutes
        return seconds if seconds is None or minutes is None else min(seconds, 60 * minutes)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Counts of 0 as a total mean that the total is unknown."""

    phase: str  # what the run does, in words
    unit: str = ""  # what `done` and `total` count in this phase, such as "calls"
    done: int = 0
    total: int = 0
    step: int = 0  # of denoising, of `steps`
    steps: int = 0
    held: int = 0  # seconds until the endpoint takes more calls, where all wait for it
    candidate: int = 0  # candidates of this round that are written, of `candidates`
    candidates: int = 0
    round: int = 0  # from 1; 0 before the first
    rounds: int = 0  # about
    baseline: Estimate | None = None  # on validation rows, used for selection
    best: Estimate | None = None
    accepted: int = 0  # candidates so far
    proposed: int = 0
    spend: Spend = field(default_factory=Spend)  # of what has ended
    limits: Limits = field(default_factory=Limits)
    work: int = 0  # all steps so far; it grows with each
    seconds: float = 0.0  # since the start of this process
    seconds_left: float | None = None  # about; None: not known yet
    stopping: bool = False  # the user has asked to stop

    def encode(self) -> dict[str, Any]:
        """Return the values of the JSON event."""
        values = asdict(self)
        for key in ("seconds", "seconds_left"):
            values[key] = None if values[key] is None else round(values[key], 1)
        return {"kind": "Progress", **values}


class Follower:
    """Follows a run: folds its events and steps, and tells its progress. Any thread may ask it."""

    def __init__(
        self,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        phase: str = "loading",
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_stopping`: whether the user has asked to stop."""
        self._limits = limits or Limits()
        self._clock, self._is_stopping = clock, is_stopping
        self._lock = threading.RLock()
        self._began = self._last = clock()
        self._phase, self._unit, self._done, self._total = phase, "", 0, 0
        self._base = 0  # calls of this request that had ended before the newest chunk
        self._steps = (0, 0)
        self._held = 0
        self._candidates = (0, 0)  # of this round: written, asked for
        self._earlier = 0  # candidates of this round that were asked for before
        self._state, self._spend, self._work = State(), Spend(), 0
        self._first_calls: int | None = None  # booked before this process
        self._workload: Workload | None = None
        self._waited = 0.0  # seconds of calls
        self._denoised: dict[int, float] = {}  # round -> seconds
        self._round_began = (0, 0)  # (round, calls booked when it began)
        self._round_calls: list[int] = []  # of each finished round that this process ran whole
        self._scores: tuple[Estimate | None, Estimate | None] = (None, None)

    # --- what it is told

    def plan(self, workload: Workload, state: State, spend: Spend) -> None:
        """Take what the run may have to do, and where it stands when it is opened."""
        with self._lock:
            self._workload, self._limits, self._state = workload, workload.limits, state
            self._take_spend(spend)
            self._phase, self._unit, self._done, self._total = _describe_start(state), "", 0, 0
            self._steps = (0, 0)  # those of the timed sample
            self._round_began = (state.round, spend.calls)
            self._score()

    def event(self, event: Event, state: State, spend: Spend) -> None:
        """Fold an event; spend: booked up to it."""
        with self._lock:
            before, self._state = self._state, state
            self._take_spend(spend)
            self._work += 1
            self._phase = describe_phase(event, state)
            self._unit, self._done, self._total, self._base = "", 0, 0, 0
            self._steps = (0, 0)
            if state.round != before.round or not before.baseline:
                self._begin_round(state.round, whole=bool(before.baseline))
            elif isinstance(event, events.SearchEnded):
                self._round_began = (state.round, spend.calls)
            if isinstance(event, events.Scored | events.Accepted):
                self._score()

    def step(self, what: str, done: int, total: int, spend: Spend | None = None) -> None:
        """Fold a step. spend: booked so far; None where the work costs nothing."""
        with self._lock:
            now = self._clock()
            took, self._last = now - self._last, now
            self._work += 1
            if spend is not None:
                self._take_spend(spend)
            if what in DENOISING:
                number = self._state.round
                self._denoised[number] = self._denoised.get(number, 0.0) + took
            elif what in UNITS or what in (WAITING, HELD):
                self._waited += took
            self._held = done if what == HELD else 0
            if what not in (WAITING, HELD):
                self._count(what, done, total)

    def _count(self, what: str, done: int, total: int) -> None:
        if what in ("denoising step", "candidate") and self._state.baseline:
            self._phase = WRITING  # it writes more where too few of the first were new
        if what == "denoising step":
            self._steps = (done, total)
        elif what == "candidate":
            if done < self._candidates[0] - self._earlier:  # the round needs more, and asks once more
                self._earlier = self._candidates[0]
            done, total = self._earlier + done, self._earlier + total
            self._candidates, self._steps = (done, total), (0, 0)
            self._unit, self._done, self._total = UNITS[what], done, total
        elif what == "call":
            self._base, self._unit, self._done, self._total = done, UNITS[what], done, total
        elif what in IN_A_CALL and self._unit == "calls" and self._base + done <= self._total:
            self._done = max(self._done, self._base + done)
        elif what == "token" and self._unit == "calls":
            self._steps = (0, 0)  # tokens of answers: the calls of the request are what counts
        elif what in UNITS:
            self._unit, self._done, self._total = UNITS[what], done, total
        else:
            self._phase, self._unit, self._done, self._total = what, PARTS if total else "", done, total
            self._steps = (0, 0)

    def _take_spend(self, spend: Spend) -> None:
        if self._first_calls is None:
            self._first_calls = spend.calls
        self._spend = spend

    def _score(self) -> None:
        state = self._state
        self._scores = (_estimate(state, state.baseline), _estimate(state, state.incumbent))

    def _begin_round(self, number: int, whole: bool) -> None:
        before, calls = self._round_began
        if whole and number == before + 1:
            self._round_calls.append(self._spend.calls - calls)
        self._round_began, self._candidates = (number, self._spend.calls), (0, 0)
        self._earlier = 0

    # --- what it tells

    @property
    def progress(self) -> Progress:
        """The progress now."""
        stopping = self._is_stopping()
        with self._lock:
            state, (baseline, best) = self._state, self._scores
            rounds = self._count_rounds()
            running = bool(state.baseline) and not state.stopped and baseline_is_scored(state)
            unit, done, total = self._count_work()
            return Progress(
                phase="stopping: what is finished within two seconds is kept" if stopping else self._phase,
                unit=unit,
                done=done,
                total=total,
                step=self._steps[0],
                steps=self._steps[1],
                held=self._held,
                candidate=self._candidates[0],
                candidates=self._candidates[1],
                round=state.round + 1 if running else state.round,
                rounds=rounds,
                baseline=baseline,
                best=best,
                accepted=len(state.accepted),
                proposed=len(state.proposals),
                spend=self._spend,
                limits=self._limits,
                work=self._work,
                seconds=self._clock() - self._began,
                seconds_left=None if stopping else self._estimate_left(rounds),
                stopping=stopping,
            )

    def _count_work(self) -> tuple[str, int, int]:
        """Return unit, done and total of the phase. The test takes many requests, so it counts all."""
        tests = self._state.stopped and self._state.tested is None
        if tests and self._unit == "calls" and self._workload and self._workload.test_calls:
            made = self._spend.calls - self._round_began[1]
            return "calls", min(made, self._workload.test_calls), self._workload.test_calls
        return self._unit, self._done, self._total

    @property
    def state(self) -> State:
        """The state after the newest event."""
        return self._state

    def _count_rounds(self) -> int:
        """Return after about how many rounds the search ends; 0: unknown."""
        state, load = self._state, self._workload
        if state.stopped:
            return state.round
        if load is None:
            return 0
        left = None
        if self._limits.calls is not None:
            left = self._limits.calls - self._round_began[1] - load.test_calls
            if not baseline_is_scored(state):
                left -= load.first_calls
        last_gain = state.round - state.rounds_without_gain
        return max(state.round + 1, load.count_rounds(state.round, last_gain, left))

    def _estimate_left(self, rounds: int) -> float | None:
        """Estimate the seconds that are left from the calls and the denoising of this run so far."""
        load, state = self._workload, self._state
        if state.tested is not None:
            return 0.0
        if load is None:
            return self._scale_left()
        left = rounds - state.round
        calls = self._count_calls_left(load, left)
        each = self._seconds_per_call(load)
        by_round = 0.0 if not left or state.stopped else self._seconds_per_round(load)
        if by_round is None or (calls and each is None):
            return None
        seconds = calls * (each or 0.0)
        if left and not state.stopped:
            seconds += max(0.0, left * by_round - self._denoised.get(state.round, 0.0))
        if self._limits.minutes is not None:
            seconds = min(seconds, max(0.0, 60 * self._limits.minutes - self._spend.seconds))
        return seconds

    def _scale_left(self) -> float | None:
        """Estimate from the share of the only phase that is done, for work without rounds."""
        took = self._clock() - self._began
        if not self._total or not self._done or self._unit == PARTS:
            return None
        return took / self._done * (self._total - self._done)

    def _count_calls_left(self, load: Workload, rounds: int) -> int:
        state, spent = self._state, self._spend.calls
        if state.stopped:
            if self._unit != "calls":
                return load.test_calls
            return max(0, load.test_calls - (spent - self._round_began[1]))
        each = sum(self._round_calls) / len(self._round_calls) if self._round_calls else load.round_calls
        this = spent - self._round_began[1]
        first = 0 if baseline_is_scored(state) else load.first_calls
        calls = max(0.0, first + rounds * each - this) + load.test_calls
        if self._limits.calls is not None:
            calls = min(calls, max(0, self._limits.calls - spent))
        return round(calls)

    def _seconds_per_call(self, load: Workload) -> float | None:
        made = self._spend.calls - (self._first_calls or 0)
        return self._waited / made if made > 0 else load.seconds_per_call

    def _seconds_per_round(self, load: Workload) -> float | None:
        """Return the seconds of denoising of a round: measured, of the sample, or from a part."""
        whole = [seconds for number, seconds in self._denoised.items() if number < self._state.round]
        if whole:
            return sum(whole) / len(whole)
        here = self._denoised.get(self._state.round, 0.0)
        written, total = self._candidates
        if load.seconds_per_round is None and written and here:
            return here * total / written
        return load.seconds_per_round


def baseline_is_scored(state: State) -> bool:
    """Whether the first round has begun: the baseline has its scores, or needs none."""
    return state.traces_read is not None or (state.baseline, "validation") in state.scores


def _estimate(state: State, id: str) -> Estimate | None:
    scores = list_scores(state, id, "validation")
    return estimate(scores) if scores else None


# --- phases in words


def describe_phase(event: Event, state: State) -> str:
    """Describe what a run does after an event."""
    match event:
        case events.TracesRead():
            return "loading the diffusion model"
        case _ if state.traces_read is not None:
            return _describe_refinement_phase(event, state)
        case events.UnlabelledInputs() | events.GoalsSet() | events.Started():
            return "scoring the baseline on validation rows"
        case events.Scored(split="train") if event.id == state.incumbent:
            return WRITING
        case events.Scored(split="train") | events.Proposed() | events.Refused():
            return "scoring candidates on train rows"
        case events.SearchEnded():
            return "sealed test of baseline and best prompt"
        case events.TestPostponed():
            return "the sealed test stopped"
        case events.Tested():
            return "writing the result"
        case _:
            return "scoring the best prompt so far on train rows"


def describe_stage(seen: RunView) -> str:
    """Describe where a run that is not finished is, as of its last event: "round 2: …"."""
    state = seen.state
    if not state.baseline:
        return "no prompt has been read yet"
    phase = describe_phase(seen.history[-1][1], state)
    searches = baseline_is_scored(state) and not state.stopped
    return f"round {state.round + 1}: {phase}" if searches else phase


def _describe_start(state: State) -> str:
    if state.traces_read is not None:
        return WRITING
    scored = baseline_is_scored(state)
    return "going on where the run stopped" if scored else "scoring the baseline on validation rows"


def _describe_refinement_phase(event: Event, state: State) -> str:
    match event:
        case events.Proposed() | events.Refused():
            return "measuring candidates on held-out conversations"
        case events.Measured() | events.Attributed():
            return "finding the evidence for the best candidate"
        case events.SearchEnded():
            return "sealed test of both prompts, if there is a target"
        case events.TestPostponed():
            return "the sealed test stopped"
        case events.Tested():
            return "writing the result"
        case _:
            return WRITING
