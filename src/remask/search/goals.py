"""What counts beside the score in a search: the preferred objective and the guard sets.

A preferred objective steers the race and lets edits in that lose nearly no score. A guard set is
asked only of an edit that would be accepted; each test of its rows has a smaller share of the
error, so that all tests of a run together accept a loss above margin and tolerance in at most 5 %
of runs. Our own design (docs/background/acceptance.md).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from remask.events import PROMPT_TOKENS, GuardSet, State
from remask.ports import Proposal
from remask.prompt import Prompt
from remask.stats import GUARD_TOLERANCE, MIN_SEED_MARGIN, accepts, bound_loss, share_alpha
from remask.types import Outcome

GUARD = "guard"  # the split of the events that score guard rows
GUARD_PART_ROWS = 32  # between two looks at a guard set; one chunk of the meter


@dataclass(frozen=True, slots=True)
class Preference:
    """The preferred objective of a run, against the prompt that a round edits."""

    name: str
    more: bool  # whether more is better
    within: float  # of the score, that may be lost for it
    only: bool  # whether an edit must improve it
    parent_tokens: int
    parent_values: Mapping[str, float]  # of the train rows of the round

    def gain(self, tokens: int, outcomes: Sequence[Outcome]) -> float:
        """Return how much better a candidate is than its parent: tokens, or a mean over train rows."""
        if self.name == PROMPT_TOKENS:
            return float(self.parent_tokens - tokens)
        known = self.parent_values
        gaps = [o.values[self.name] - known[o.example] for o in outcomes
                if self.name in o.values and o.example in known]  # fmt: skip
        return (sum(gaps) / len(gaps) if gaps else 0.0) * (1 if self.more else -1)

    def allow(self, gain: float) -> float:
        """Return the score that a candidate with this gain may lose in the race."""
        return self.within if gain > 0 else float("-inf") if self.only else 0.0


def find_preference(state: State, parent: str, outcomes: Sequence[Outcome] = ()) -> Preference | None:
    """Return the preference of a run; None where the score chooses. `outcomes`: of the parent."""
    goals = state.goals
    if not goals.prefer:
        return None
    values = {o.example: o.values[goals.prefer] for o in outcomes if goals.prefer in o.values}
    more = dict(goals.objectives).get(goals.prefer, False)
    return Preference(
        goals.prefer, more, goals.within / 100, goals.only_preferred, state.tokens.get(parent, 0), values
    )


def refuse_longer(state: State, parent: Prompt, proposal: Proposal, count: Callable[[str], int]) -> Proposal:
    """Return a proposal that a search for shorter prompts has no use for with that violation.

    So no call is spent on it.
    """
    goals = state.goals
    if not goals.only_preferred or goals.prefer != PROMPT_TOKENS or proposal.violation:
        return proposal
    if count(proposal.prompt.text) < count(parent.text):
        return proposal
    return replace(proposal, violation="it is not shorter than the prompt that it edits")


def is_preferred(state: State, tokens: int, outcomes: Sequence[Outcome]) -> bool:
    """Whether a winner is better than the incumbent on the preferred objective.

    `tokens`: of its prompt; `outcomes`: its validation rows. Tokens count exactly; a measured
    objective must be ahead by MIN_SEED_MARGIN, as `accepts` takes it.
    """
    prefer = state.goals.prefer
    if not prefer:
        return False
    if prefer == PROMPT_TOKENS:
        return tokens < state.tokens[state.incumbent]
    before = state.values.get((state.incumbent, "validation", prefer), {})
    sign = 1 if dict(state.goals.objectives)[prefer] else -1
    pairs = [(o.values.get(prefer), before.get(o.example)) for o in outcomes]
    gaps = [sign * (a - b) for a, b in pairs if a is not None and b is not None]
    return accepts(gaps, MIN_SEED_MARGIN)


def choose_preferred(state: State) -> str:
    """Return the prompt that the run ends with: the best on the preferred objective among the
    prompts that were accepted, and whose score is at most `within` below the leader's.

    It is on the Pareto front, or as good as a prompt there.
    """
    goals = state.goals
    least = state.measure(state.leader)
    if not goals.prefer or least is None:
        return state.incumbent
    sign = 1 if dict(goals.objectives).get(goals.prefer, False) else -1
    ranked = []
    for order, id in enumerate(dict.fromkeys([state.baseline, *(e.id for e in state.accepted)])):
        score, value = state.measure(id), state.measure(id, goals.prefer)
        if score is not None and value is not None and score >= least - goals.within / 100 - 1e-9:
            ranked.append((sign * value, score, order, id))
    return max(ranked)[-1] if ranked else state.incumbent


def count_guard_tests(state: State, winner: str) -> int:
    """Return how many prompts were tested on guard rows before this winner."""
    return sum(split == GUARD and id not in (state.baseline, winner) for id, split in state.scores)


Score = Callable[[Sequence[str]], dict[str, float | None]]  # the scores of rows by id


def find_loss(guards: Sequence[GuardSet], before: Mapping[str, float | None], score: Score, test: int) -> str:
    """Ask a winner the guard rows of each set. Returns the set that may lose too much, in a sentence.

    `before`: the scores of the seed prompt; `score` asks the winner; `test`: the number of the test.
    A set is asked in parts, and no further where it does not hold if the rest does not differ: that
    can only reject. "" where all sets hold.
    """
    alpha = share_alpha(test)
    for guard in guards:
        after: dict[str, float | None] = {}
        while len(after) < len(guard.validation):
            after |= score(guard.validation[len(after) : len(after) + GUARD_PART_ROWS])
            rest = len(guard.validation) - len(after)
            if loss := describe_loss(guard, before, after, rest, alpha):
                return loss
    return ""


def describe_loss(
    guard: GuardSet,
    before: Mapping[str, float | None],
    after: Mapping[str, float | None],
    rest: int,
    alpha: float,
) -> str:
    """Say why a guard set does not hold, if `rest` further rows do not differ; "" where it holds.

    It holds where its score has not dropped by more than the margin on all rows, and a drop by more
    than margin and tolerance is excluded at 1 - alpha.
    """
    scored = [(before.get(id), value) for id, value in after.items()]
    pairs = [(a, b) for a, b in scored if a is not None and b is not None] + [(0.0, 0.0)] * rest
    if not pairs:
        return f"guard set {guard.name}: no row has both scores"
    old, new = zip(*pairs, strict=True)
    margin, drop = guard.margin / 100, (sum(old) - sum(new)) / len(pairs)
    bound = bound_loss(old, new, alpha)
    # What is lost may be won on the rows to come, so the drop itself counts only at the end.
    kept = bool(rest) or drop <= margin + 1e-9
    if kept and bound <= margin + GUARD_TOLERANCE + 1e-9:
        return ""
    return (
        f"guard set {guard.name}: {-100 * drop:+.3g} points on {len(pairs) - rest} rows, and a loss of up to "
        f"{100 * bound:.3g} is not excluded; {guard.margin + 100 * GUARD_TOLERANCE:g} is allowed"
    )
