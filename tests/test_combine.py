"""Combining earlier edits: what is chosen, that nothing overlaps, and that a seam is guarded."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from colours import Phrases, rows
from remask import guard
from remask.combine import apart, joints, moved
from remask.config import make_config
from remask.demos import DemoProposer, ExplainingDemoProposer, joined, parted
from remask.events import Accepted, Event, Kept, Proposed, Scored, Started, State, fold
from remask.ports import Context, Joint
from remask.prompt import Edit, Prompt
from remask.propose import DiffusionProposer, ExplainingProposer, Recipe
from remask.search import Plan, make_plan, search
from remask.trace import Outcome, Split, Trace
from remask.wire import Parts, prepare

TEXT = "one two three four five six seven eight nine ten"
START = Prompt(TEXT)
WORDS = [(i, i + len(word)) for word in TEXT.split() for i in [TEXT.index(word)]]


@st.composite
def edits(draw: st.DrawFn) -> tuple[tuple[int, int, str], ...]:
    """One or two runs of words replaced, deleted or inserted before."""
    found: list[tuple[int, int, str]] = []
    for _ in range(draw(st.integers(1, 2))):
        first = draw(st.integers(0, 9))
        start, stop = WORDS[first][0], WORDS[draw(st.integers(first, min(9, first + 2)))][1]
        inserts = draw(st.booleans())
        new = (start, start if inserts else stop, draw(st.sampled_from(["", "new ", "a b"])))
        if apart(found, [new]):
            found.append(new)
    return tuple(sorted(found))


def proposed(round: int, parent: Prompt, made: Sequence[tuple[int, int, str]]) -> Proposed:
    prompt = parent.apply(Edit(*edit) for edit in made)
    masks = tuple((start, stop, 2) for start, stop, _ in made)
    return Proposed(round, prompt.id, parent.id, prompt.text, 9, "span", masks, tuple(made), (), -1)


def scored(round: int, id: str, right: int) -> Scored:
    return Scored(round, id, "train", tuple((str(i), float(i < right), 0.0) for i in range(10)))


def history(changes: Sequence[tuple[tuple[int, int, str], ...]], accept: bool) -> State:
    """One round in which all `changes` were ahead, the first most; and perhaps accepted."""
    events: list[Event] = [Started(TEXT, START.id, 9), scored(0, START.id, 2)]
    for i, made in enumerate(changes):
        one = proposed(0, START, made)
        events += [one, scored(0, one.id, 9 - i)]
    first = proposed(0, START, changes[0])
    events.append(Accepted(0, first.id, START.id, 0.1, ()) if accept else Kept(0, "no"))
    return fold(events)


@given(st.lists(edits(), min_size=2, max_size=5, unique=True), st.booleans())
def test_what_is_made_at_once_is_what_was_made_alone(
    changes: list[tuple[tuple[int, int, str], ...]], accept: bool
) -> None:
    texts = [START.apply(Edit(*e) for e in made).text for made in changes]
    if len(set(texts)) < len(texts) or TEXT in texts:
        return
    state = history(changes, accept)
    incumbent = state.prompt(state.incumbent)
    found = joints(state, 99)
    for joint in found:
        combined = incumbent.apply(Edit(*edit) for edit in joint.edits).text
        alone = [changes[texts.index(part.text)] for part in joint.parts]
        together = sorted(
            edit for made in (*alone, *(changes[:1] if accept else ())) for edit in made
        )
        assert combined == START.apply(Edit(*edit) for edit in together).text
        assert [m[:2] for m in joint.masks] == [e[:2] for e in joint.edits]
    pairs = [
        (i, j) for i in range(len(changes)) for j in range(i) if apart(changes[i], changes[j])
        and (not accept or j == 0)
    ]  # fmt: skip
    assert len(found) == len(pairs), "every pair that fits, once"
    assert joints(state, 1) == found[:1]


def test_only_what_was_ahead_and_only_of_rounds_that_are_over() -> None:
    changes = [((0, 3, "uno"),), ((4, 7, "dos"),), ((8, 13, "tres"),)]
    state = history(changes, accept=False)
    assert [len(joint.parts) for joint in joints(state, 9)] == [2, 2, 2]
    worse = proposed(0, START, ((14, 18, "cuatro"),))
    behind = fold([Started(TEXT, START.id, 9), scored(0, START.id, 5), worse,
                   scored(0, worse.id, 5), Kept(0, "no")])  # fmt: skip
    assert joints(behind, 9) == ()
    running = fold([Started(TEXT, START.id, 9), scored(0, START.id, 0)]
                   + [e for made in changes for one in [proposed(0, START, made)]
                      for e in (one, scored(0, one.id, 9))])  # fmt: skip
    assert joints(running, 9) == ()


@given(edits(), edits())
def test_apart_is_symmetric_and_sound(one: Sequence, other: Sequence) -> None:
    assert apart(one, other) == apart(other, one)
    if apart(one, other):
        START.apply(Edit(*edit) for edit in sorted((*one, *other)))
        assert moved(len(TEXT), one) == len(START.apply(Edit(*e) for e in one).text)


def test_the_seam_forms_no_words_of_a_user() -> None:
    untrusted = guard.ngrams(["please transfer every dollar"])
    base = Prompt("Answer kindly and briefly.")
    one, other = Prompt("Please transfer kindly and briefly."), Prompt("Answer every dollar.")
    both = Prompt("Please transfer every dollar.")
    assert "copies a user's words" in guard.objection(both, base, untrusted, parts=(one, other))
    assert not guard.objection(both, base, untrusted, parts=(both,))


class Two:
    """Right on a third of the rows as it is, on another with colours, on the last with kindness."""

    labels: tuple[str, ...] = ()

    def ids(self, split: Split) -> tuple[str, ...]:
        return tuple(f"{split} {i}" for i in range(30))

    def evaluate(self, prompt: Prompt, ids: Sequence[str]) -> list[Outcome]:
        able = [True, "colours" in prompt.text, "kindly" in prompt.text]
        scores = {id: float(able[int(id.split()[1]) % 3]) for id in ids}
        return [
            Outcome(id, "scored", s, s, trace=Trace(id, f"question {id}", "?", "right", score=s))
            for id, s in scores.items()
        ]


def play(seed: int, state: State, combined: int = 2) -> list[Event]:
    start = Prompt("Name it. Be brief.")
    proposer = DiffusionProposer(start, Phrases(), Recipe(("insert",), 4, 400, 3.0))
    plan = Plan(candidates=6, rungs=(6, 12), rounds=4, patience=4, combined=combined)
    return list(search(state, start, plan, Two(), proposer, seed))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 500), st.integers(0, 80))
def test_a_search_combines_and_a_cut_round_is_played_again(seed: int, cut: int) -> None:
    whole = play(seed, State())
    state = fold(whole)
    best = state.prompt(state.incumbent).text
    assert "colours" in best and "kindly" in best
    log = whole[:cut]
    log += [event for event in play(seed, fold(log)) if event not in log]
    assert log == list(dict.fromkeys(whole))


def test_some_search_needs_the_combination() -> None:
    made = [p for seed in range(5) for p in fold(play(seed, State())).proposals]
    assert any(p.masker == "both" for p in made)


def test_nothing_is_combined_unless_it_is_asked_for() -> None:
    assert make_plan(2000, 200, 200).combined == 0
    for seed in range(5):
        state = fold(play(seed, State(), combined=0))
        assert not any(p.masker == "both" for p in state.proposals)
    job = prepare(
        make_config({"prompt": "Name it.", "search": {"combine": True, "candidates": 12}}, "test"),
        Parts(respond=lambda messages: "red", rows=rows(), metric=lambda example, response: 1.0),
    )
    assert job.plan.combined == 4


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 500))
def test_a_block_of_examples_and_an_edit_are_combined_too(seed: int) -> None:
    start = Prompt.parse("Name it. [[keep]]Be brief.[[/keep]] Answer.")
    inner = DiffusionProposer(start, Phrases(), Recipe(("insert",), 4, 400, 3.0))
    plan = Plan(candidates=9, rungs=(6, 12), rounds=5, patience=5, combined=4)
    state = fold(search(State(), start, plan, Two(), DemoProposer(start, inner, 3), seed))
    for made in (p for p in state.proposals if p.masker == "both"):
        parent, prompt = Prompt.parse(state.prompts[made.parent]), Prompt.parse(made.prompt)
        text = list(parent.text)
        for begin, stop, new in sorted(made.edits, reverse=True):
            text[begin:stop] = new
        assert "".join(text) == prompt.text
        body, block = parted(prompt, start)
        assert joined(body, block) == prompt and "Be brief." in body.text
        assert not block or block.startswith("Examples:\n\n")


class Scoring(Phrases):
    """… that also scores, and notes which words."""

    def __init__(self) -> None:
        self.scored: list[str] = []

    def score(self, context: Context, text: str, spans: Sequence[tuple[int, int]]) -> list[float]:
        self.scored += [text[start:stop] for start, stop in spans]
        return [float(len(context)) for _ in spans]


def test_a_block_and_an_edit_are_made_at_once_and_explained() -> None:
    body, denoiser = Prompt(TEXT), Scoring()
    inner = ExplainingProposer(body, denoiser, Recipe(("insert",), 4, 400, 3.0))
    traces = [Trace(str(i), f"item {i}", "?", "red") for i in range(4)]
    around = ExplainingDemoProposer(body, inner, 2)
    shown = next(p for p in around.propose(body, traces, 6, 0) if p.masker == "demos in")
    edit = ((0, 3, "uno"),)
    joint = Joint(
        masks=((0, 3, 1), *shown.masks), edits=(*edit, *shown.edits), traces=("1",), logp=0.0,
        parts=(body.apply([Edit(*edit[0])]), shown.prompt),
    )  # fmt: skip
    both = around.combine(body, joint, traces)
    assert both.prompt.text == "uno" + shown.prompt.text[3:]
    assert both.shown == shown.shown and not both.objection
    assert [drop.trace for drop in around.explain(both, traces)] == ["1"]
    assert set(denoiser.scored) == {"uno"}, "the block names its rows itself"
    again = around.combine(
        shown.prompt,
        Joint(masks=(), edits=(*edit, (len(TEXT), len(shown.prompt.text), "")), traces=(),
              logp=0.0, parts=()), traces,
    )  # fmt: skip
    assert again.prompt.text == "uno" + TEXT[3:], "an edit and the removal of the block"
    assert again.shown == shown.shown
