"""Refining without a target: what is read, what measures, what is accepted, and what is said."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import remask
from fakes import conversations, write_lines
from fakes.colours import Phrases
from fakes.command import remask as command
from fakes.conversations import Listener, Painter, line, write_log
from fakes.server import Body, Handler, Server, completion
from remask.data.prompt_traces import read_traces
from remask.errors import ConfigError, TargetRefused
from remask.events import Event, SearchEnded, Started, State, fold
from remask.ports import Context, Fill, Hole, Proposal, find_written_spans
from remask.prompt import Prompt
from remask.propose.proposer import DiffusionProposer, ProposerConfig
from remask.propose.select_traces import select
from remask.runs.budget import Spend
from remask.runs.result import Evidence, RefinedEdit
from remask.runs.store import Store
from remask.search.likelihood import (
    CONTROL,
    MAX_FOLDS,
    LikelihoodPlan,
    measure_gains,
    search_by_likelihood,
    split_folds,
)
from remask.types import Feedback, Trace

START = Prompt(conversations.START)
LOOP = LikelihoodPlan(iterations=6, candidates=8, traces=4, context_tokens=400)
SUPPORTED = "Think of colours."


def trace(i: int, said: str = "Colours!", score: float = 0.0) -> Trace:
    return Trace(f"t{i}", f"item {i}", "grey", "red", (Feedback("comment", said),), score)


def proposer(denoiser: Listener, maskers: tuple[str, ...] = ("insert", "attribution")) -> Any:
    return DiffusionProposer(START, denoiser, ProposerConfig(maskers, 4, 400, 3.0))


def play(
    seed: int = 0, held: str = "Colours!", loop: LikelihoodPlan = LOOP
) -> tuple[list[Event], State, Listener]:
    measuring = Listener()
    read, kept = [trace(i) for i in range(8)], [trace(i, held) for i in range(8, 16)]
    made = proposer(Listener())
    events = list(search_by_likelihood(State(), START, read, kept, loop, made, measuring, seed, select))
    return events, fold(events), measuring


# --- the loop


def test_what_the_conversations_speak_for_is_accepted_and_linked_to_them() -> None:
    _, state, _ = play()
    assert state.accepted and all(SUPPORTED in state.prompts[a.id] for a in state.accepted)
    first = state.accepted[0]
    proposed = state.proposal(first.round, first.id)
    assert first.attributions and set(first.attributions) <= set(proposed.traces)
    assert set(first.attributions) <= {f"t{i}" for i in range(8)}
    (drops,) = (a.attributions for a in state.attributed if (a.round, a.id) == (first.round, first.id))
    assert tuple(id for id, _ in drops) == first.attributions
    written = [text for _, _, text in proposed.edits if text]
    assert all(len(each) == len(written) and sum(each) > 0 for _, each in drops)
    assert all(r.reason for r in state.refusals)
    for one in state.accepted:
        measured = [m for m in state.measured if m.round == one.round]
        assert one.gain == next(m.log_likelihood_gain for m in measured if m.id == one.id)


def test_the_number_of_iterations_is_fixed_and_they_follow_each_other() -> None:
    events, state, _ = play()
    incumbent = START.id
    for number in range(LOOP.iterations):
        assert {p.parent for p in state.proposals.values() if p.round == number} <= {incumbent}
        incumbent = next((a.id for a in state.accepted if a.round == number), incumbent)
    assert isinstance(events[0], Started) and isinstance(events[-1], SearchEnded)
    assert state.round == LOOP.iterations == play(held="Nothing.")[1].round
    assert play(loop=replace(LOOP, iterations=1))[1].round == 1


def test_only_held_out_conversations_measure() -> None:
    """What the read half says and the held-out half does not is not accepted."""
    _, state, measuring = play(held="Nothing.")
    assert not state.accepted
    assert any(SUPPORTED in state.prompts[m.id] for m in state.measured)
    seen = {t.id for context, _ in measuring.asked for t in context}
    held = {f"t{i}" for i in range(8, 16)}
    assert seen & held and seen <= held | {t.id for t in CONTROL}


def test_no_text_is_measured_twice_in_a_run() -> None:
    _, state, _ = play(held="Nothing.")
    ids = [m.id for m in state.measured]
    assert len(ids) == len(set(ids)) > 0
    assert START.id not in ids


def test_a_seed_decides_everything() -> None:
    assert play(1)[0] == play(1)[0]
    assert play(1)[0] != play(2)[0]


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_a_loop_that_was_cut_goes_on_with_the_same_events(cut: int) -> None:
    """As `search` does: the round that was cut is played again and gives the same events."""
    events, _, _ = play()
    state = fold(events[:cut])
    read, kept = [trace(i) for i in range(8)], [trace(i, "Colours!") for i in range(8, 16)]
    made = proposer(Listener())
    rest = search_by_likelihood(state, START, read, kept, LOOP, made, Listener(), 0, select)
    whole = [*events[:cut], *(event for event in rest if event not in events[:cut])]
    assert whole == events


# --- the figure


def proposal(*edits: tuple[int, int, str], start: Prompt = START) -> Proposal:
    text, shift = start.text, 0
    for a, b, new in edits:
        text = text[: a + shift] + new + text[b + shift :]
        shift += len(new) - (b - a)
    return Proposal(Prompt(text), "test", (), edits, (), 0.0)


HEARD = (trace(1, "Brief colours."),)  # lifts "brief" and "colours" by 1, other words by -0.25


@pytest.mark.parametrize(
    ("edit", "gain"),
    [
        ((12, 17, "vivid"), -0.25 - 1.0),  # brief → vivid
        ((5, 7, "colours"), 1.0),  # it → colours
        ((8, 18, ""), -(1.0 - 0.25)),  # "Be brief." goes, which is supported
        ((0, 8, ""), 0.0),  # "Name it." goes: nobody spoke of it, which is not held against it
        # Two words more: each must be lifted by as much as the four old ones on average, 0.0625.
        ((18, 18, " Colours. Brief."), 2.0 - 2 * 0.0625),
        ((18, 18, " Be kind."), -0.5 - 2 * 0.0625),
    ],
)
def test_gains_by_hand(edit: tuple[int, int, str], gain: float) -> None:
    ((found,),) = measure_gains(Listener(), [HEARD], Listener().count, START, [proposal(edit)])
    assert found == pytest.approx(gain)


def test_growth_is_free_where_the_text_around_is_not_supported() -> None:
    nobody = (trace(1, "Colours."),)
    new = proposal((18, 18, " Colours."))
    assert measure_gains(Listener(), [nobody], Listener().count, START, [new]) == [(1.0,)]


def test_every_panel_counts_alone() -> None:
    other = (trace(2, "Nothing."),)
    new = [proposal((5, 7, "colours")), proposal((5, 7, "them"))]
    found = measure_gains(Listener(), [HEARD, other], Listener().count, START, new)
    assert found == [(1.0, -0.25), (-0.25, -0.25)]


def test_panels_share_no_conversation() -> None:
    held = [trace(i, score=float(i % 2)) for i in range(11)]
    found = split_folds(held, LOOP, Listener().count, remask_rng(), select)
    ids = [t.id for context in found for t in context]
    assert len(found) == MAX_FOLDS and len(ids) == len(set(ids)) == 11
    assert len(split_folds(held[:2], LOOP, Listener().count, remask_rng(), select)) == 2


def remask_rng() -> Any:
    from remask.ids import rng_for

    return rng_for(0, "test")


@given(st.lists(st.integers(0, 60), min_size=2, max_size=12), st.integers(1, 40))
def test_a_scorer_reads_every_span_once_and_no_text_twice(cuts: list[int], stretch: int) -> None:
    class Windows(Listener):
        def score(self, context: Context, text: str, spans: Sequence[tuple[int, int]]) -> Any:
            windows.append((text, [text[a:b] for a, b in spans[:-1]]))
            return super().score(context, text, spans)

    windows: list[tuple[str, list[str]]] = []
    text = " ".join(f"word{i}" for i in range(61 * stretch))
    edges = [place * 6 * stretch for place in sorted(set(cuts))]
    spans = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    cut = proposal(*((a, b, "") for a, b in spans), start=Prompt(text))  # nothing new is scored
    measure_gains(Windows(), [], Listener().count, Prompt(text), [cut])
    read = [(part, inside) for part, inside in windows if inside]
    assert [word for _, inside in read for word in inside] == [text[a:b] for a, b in spans]
    assert sum(len(part) for part, _ in read) <= len(text)


def test_where_new_texts_stand() -> None:
    made = proposal((0, 4, "Say"), (8, 12, ""), (18, 18, " Now."))
    text = made.prompt.text
    assert [text[a:b] for a, b in find_written_spans(made)] == ["Say", " Now."]


def test_numbers_stay_unless_they_are_freed() -> None:
    start = Prompt("Refund within 24 hours. Be brief.")

    class Liar(Listener):
        def infill(self, context: Context, canvases: Any, seed: int) -> Any:
            return [Fill(("Colours: 48.",) * sum(isinstance(p, Hole) for p in c), -1.0)
                    for c in canvases]  # fmt: skip

    def refused(free: bool) -> set[str]:
        loop = replace(LOOP, iterations=1, free_numbers=free)
        recipe = ProposerConfig(("insert",), 4, 400, 3.0)
        made = DiffusionProposer(start, Liar(), recipe)
        some = [trace(i) for i in range(8)]
        halves = some[:4], some[4:]
        state = fold(search_by_likelihood(State(), start, *halves, loop, made, Listener(), 0, select))
        return {rejected.reason for rejected in state.refusals}

    assert refused(free=False) == {"new number: 48"}
    assert not refused(free=True)


# --- files to traces


SECRET = "ann.lee@example.com"


def test_everything_is_redacted_in_the_order_of_the_files(tmp_path: Path) -> None:
    secret = line(0, user=f"I am {SECRET}", answer=f"Hello {SECRET}", expected=f"Hi {SECRET}")
    secret["id"] = f"from {SECRET}"
    secret["feedback"] = [
        {"name": f"by {SECRET}", "value": f"{SECRET}!", "kind": "human"},
        {"name": "words", "value": None, "comment": f"Write to {SECRET}", "kind": "human"},
    ]
    files = [write_lines(tmp_path / "a.jsonl", secret), write_lines(tmp_path / "b.jsonl", secret, line(1))]
    found = read_traces("Name it.", files)
    assert SECRET not in repr(found)
    assert repr(found).count("<EMAIL_1>") >= 10 and "<EMAIL_2>" not in repr(found)
    assert found.secrets == {"EMAIL": 1}
    open_ = read_traces("Name it.", files, redact=False)
    assert SECRET in repr(open_) and not open_.secrets


def test_names_are_made_unique(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", *[line(0, user=f"item {i}") for i in range(3)])
    twin = tmp_path / "b.jsonl"
    twin.write_bytes(file.read_bytes())
    found = read_traces("Name it.", [file, twin, file])  # a file that is named twice counts once
    ids = [t.id for t in found.traces]
    assert len(ids) == len(set(ids)) == 6 and ids[:2] == ["call 0", "call 0 (2)"]
    assert set(found.messages) == set(ids)


SHOP = "You help the customers of a shop. Today is {}. Be short and kind to everybody."
TRIP = "You plan journeys by train through the mountains, and you never name a price."


def test_of_several_system_prompts_only_like_ones_are_used(tmp_path: Path) -> None:
    lines = [line(i, SHOP.format(day)) for i, day in enumerate(("Monday", "Friday"))]
    lines += [line(2, TRIP), line(3)]
    file = write_lines(tmp_path / "a.jsonl", *lines)
    found = read_traces(SHOP.format("{day}"), [file])
    assert [t.id for t in found.traces] == ["call 0", "call 1"]
    assert (found.records, found.elsewhere) == (4, 2)
    assert any("2 system prompts" in note for note in found.notes)
    with pytest.raises(ConfigError, match="none of the 2 system prompts"):
        read_traces("Classify the sentiment of a film review as positive or negative.", [file])


def test_of_one_system_prompt_all_are_used_and_it_is_said(tmp_path: Path) -> None:
    other = read_traces("Name it.", [write_lines(tmp_path / "a.jsonl", line(0, TRIP), line(1, TRIP))])
    assert len(other.traces) == 2 and "another system prompt" in other.notes[0]
    nobody = read_traces("Name it.", [write_lines(tmp_path / "b.jsonl", line(0))])
    assert "no conversation has a system prompt" in nobody.notes[0]
    same = read_traces(TRIP, [tmp_path / "a.jsonl"])
    assert not same.notes


def test_ratings_without_a_scale_are_named(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", line(0, stars=5), line(1, stars=2))
    found = read_traces("Name it.", [file])
    assert any("--scale 'stars=WORST..BEST'" in note for note in found.notes)
    assert [t.score for t in found.traces] == [None, None]
    declared = read_traces("Name it.", [file], scales=["stars=1..5"])
    assert [t.score for t in declared.traces] == [1.0, 0.25]


def test_of_many_sources_none_has_more_than_a_hundredth(tmp_path: Path) -> None:
    def sources(names: Sequence[str]) -> tuple[Counter[str], list[str]]:
        lines = [line(i, session_id=name) for i, name in enumerate(names)]
        found = read_traces("Name it.", [write_lines(tmp_path / "a.jsonl", *lines)])
        return Counter(one.source for one in found.traces), list(found.notes)

    many = [f"s{i}" for i in range(200)] + ["loud"] * 100 + [""] * 100
    counts, notes = sources(many)
    assert counts["loud"] == 4 == 400 // 100 and counts[""] == 100, "an unknown source is no source"
    assert len(counts) == 202 and counts.total() == 304
    assert any(note.startswith("left out 96 conversations of sources") for note in notes)
    few = many[150:]
    assert sources(few)[0] == Counter(few), "of few sources all are read"


def test_only_single_messages_can_be_asked_again(tmp_path: Path) -> None:
    long = line(1)
    long["messages"] += [{"role": "user", "content": "No!"}, {"role": "assistant", "content": "x"}]
    found = read_traces("Name it.", [write_lines(tmp_path / "a.jsonl", line(0), long)])
    assert found.messages == {"call 0": "item 0"}


# --- the whole


def refine(folder: Path, **more: Any) -> remask.Result:
    more.setdefault("denoiser", Listener())
    more.setdefault("run_dir", folder / "run")
    more.setdefault("search", remask.Search(maskers=["insert"], traces=4))
    return remask.refine(START.text, more.pop("files", folder / "log.jsonl"), **more)


def evidence(found: remask.Result) -> tuple[Evidence, ...]:
    edit = found.edits[0]
    assert isinstance(edit, RefinedEdit)
    return edit.attributions


def untimed(found: remask.Result) -> remask.Result:
    return replace(found, run_dir="", spend=Spend())


def test_without_a_target_nothing_is_verified_and_that_is_said(tmp_path: Path) -> None:
    write_log(tmp_path)
    found = refine(tmp_path)
    assert found.verdict == "unverified" and found.test is None and found.spend.calls == 0
    assert SUPPORTED in found.prompt and evidence(found)
    assert all("item" in one.query and one.said for one in evidence(found))
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    assert stored["verdict"] == "unverified" and stored["prompt"] == found.prompt
    assert stored["refinement"]["conversations"]["redacted"] is True
    page = (tmp_path / "run" / "report.md").read_text()
    assert "unverified: no target has answered" in page and SUPPORTED in page
    html = (tmp_path / "run" / "report.html").read_text()
    assert "unverified: no target has answered" in html and SUPPORTED in html
    assert found.refinement is not None
    seen = found.refinement.conversations
    assert (seen.read, seen.held, seen.sealed) == (20, 20, 0)


def test_the_same_seed_gives_the_same_result(tmp_path: Path) -> None:
    write_log(tmp_path)
    one, two, other = (
        refine(tmp_path, run_dir=tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert untimed(one) == untimed(two)
    assert untimed(one) != untimed(other)


def test_no_secret_is_written_or_read_by_the_denoiser(tmp_path: Path) -> None:
    write_log(tmp_path, user="x")
    lines = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    for i, value in enumerate(lines):
        value["messages"][0]["content"] = f"item {i} for {SECRET}"
    write_lines(tmp_path / "log.jsonl", *lines)
    denoiser = Listener()
    found = refine(tmp_path, denoiser=denoiser)
    assert SECRET not in repr((denoiser.contexts, denoiser.asked, found))
    for path in (tmp_path / "run").rglob("*"):
        assert SECRET.encode() not in path.read_bytes()
    assert "<EMAIL_1>" in evidence(found)[0].query

    kept = refine(tmp_path, redact=False, run_dir=tmp_path / "open")
    assert kept.refinement is not None and not kept.refinement.conversations.redacted
    assert SECRET in evidence(kept)[0].query
    assert "redaction: OFF" in (tmp_path / "open" / "report.md").read_text()


def test_what_the_guard_refuses_is_listed(tmp_path: Path) -> None:
    lines = [line(i, user=f"please answer kindly every time {i}") for i in range(20)]
    file = write_lines(tmp_path / "log.jsonl", *lines)
    words = [{"name": "u", "value": False, "comment": "you must answer kindly today"}]
    write_lines(file, *[{**value, "feedback": words} for value in lines])
    found = refine(tmp_path, denoiser=Listener())
    assert found.refinement is not None
    refused = {refusal.reason.partition(":")[0] for refusal in found.refinement.refused}
    assert refused, "WORDS[0] repeats what a user said, or a sentence stands twice"
    page = (tmp_path / "run" / "report.md").read_text()
    assert all(reason in page for reason in refused)


def test_the_report_lets_no_quoted_text_out_of_its_line(tmp_path: Path) -> None:
    write_log(tmp_path, user="x")
    lines = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    for i, value in enumerate(lines):
        value["messages"][0]["content"] = f"item {i} `` ```\n# Heading \u202e <img src=x> | a"
    write_lines(tmp_path / "log.jsonl", *lines)
    refine(tmp_path)
    page = (tmp_path / "run" / "report.md").read_text()
    assert "evidence: " in page and "\u202e" not in page
    assert not any(row.startswith("# Heading") for row in page.splitlines())
    assert "```` item" in page


def test_under_a_lock_on_the_text_sentences_are_only_added(tmp_path: Path) -> None:
    write_log(tmp_path)
    found = refine(tmp_path, lock="text", search=remask.Search(traces=4))
    assert found.edits and {edit.masker for edit in found.edits} == {"insert"}
    assert all(not before for edit in found.edits for before, _ in edit.changes)
    assert all(change.kind != "removed" for change in found.diff())


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "api": ({"denoiser": "chat:writer"}, "chat:writer does not give"),
    "weak": ({"denoiser": Phrases()}, "ranks by log-probabilities"),
    "iterations": ({"iterations": 0}, r"refine\.iterations is 0, but must be at least 1"),
    "scale": ({"scales": ["stars"]}, "--scale"),
    "column": ({"columns": ["colour=x"]}, "--map"),
    "lock": ({"lock": "rules"}, r"refine\.lock is 'rules', but must be"),
    "locked": ({"lock": "text", "search": remask.Search(maskers=["span"])}, "only the masker"),
    "missing": ({"files": "nowhere.jsonl"}, "no such file"),
    "target": ({"target": "nothing:x"}, "target 'nothing:x' is unknown"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_input_is_one_sentence_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    write_log(tmp_path)
    more, says = BAD[name]
    with pytest.raises(ConfigError, match=says) as error:
        refine(tmp_path, **more)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_too_little_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    write_lines(tmp_path / "log.jsonl", line(0), line(0))
    with pytest.raises(ConfigError, match="1 different queries are too few"):
        refine(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"foo": 1}\n')
    with pytest.raises(ConfigError, match="no usable record"):
        refine(tmp_path)


def test_a_result_is_not_overwritten(tmp_path: Path) -> None:
    write_log(tmp_path)
    refine(tmp_path)
    with pytest.raises(ConfigError, match="already holds a run"):
        refine(tmp_path, seed=1)


run = partial(command, "refine")


# --- verification


def test_with_a_target_both_prompts_answer_sealed_conversations_once(tmp_path: Path) -> None:
    write_log(tmp_path)
    painter, denoiser = Painter(), Listener()
    found = refine(tmp_path, target=painter, denoiser=denoiser)
    assert found.verdict == "improved" and found.test is not None and found.refinement is not None
    assert (found.refinement.metric, found.test.n, found.test.baseline, found.test.best) == (
        "label",
        20,
        0,
        1,
    )
    assert len(painter.asked) == found.spend.calls == 40 == len(set(painter.asked))
    sealed = {user for _, user in painter.asked}
    seen = {t.query for c in denoiser.contexts for t in c}
    seen |= {t.query for c, _ in denoiser.asked for t in c}
    assert len(sealed) == 20 and seen and seen.isdisjoint(sealed)
    assert "improved: 0.000 → 1.000" in (tmp_path / "run" / "report.md").read_text()


def test_the_sealed_rows_do_not_depend_on_seed_or_order(tmp_path: Path) -> None:
    write_log(tmp_path)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    (tmp_path / "turned.jsonl").write_text("\n".join(reversed(lines)))
    rows = []
    for name, file, seed in (("a", "log", 0), ("b", "turned", 5)):
        painter = Painter()
        refine(tmp_path, files=tmp_path / f"{file}.jsonl", target=painter, run_dir=tmp_path / name, seed=seed)
        rows.append({user for _, user in painter.asked})
    assert rows[0] == rows[1] and len(rows[0]) == 20


def test_a_refused_target_leaves_the_prompt_and_goes_on_at_no_cost(tmp_path: Path) -> None:
    write_log(tmp_path)
    with pytest.raises(TargetRefused):
        refine(tmp_path, target=Painter(fails=32))
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    assert stored["verdict"] == "unverified" and SUPPORTED in stored["prompt"]
    rest = Painter()
    found = remask.resume(tmp_path / "run", target=rest, denoiser=Listener())
    assert found.verdict == "improved" and len(rest.asked) < 40
    again = Painter()
    found = remask.resume(tmp_path / "run", target=again, denoiser=Listener())
    assert found.verdict == "improved" and not again.asked
    write_log(tmp_path, n=30)
    with pytest.raises(ConfigError, match="other settings: data_id"):
        remask.resume(tmp_path / "run", target=Painter(), denoiser=Listener())


def test_the_budget_bounds_the_sealed_rows(tmp_path: Path) -> None:
    write_log(tmp_path)
    painter = Painter()
    found = refine(tmp_path, target=painter, max_calls=12)
    assert len(painter.asked) == 12 and found.test is not None and found.test.n == 6
    assert any("pays for 6 of 20" in w for w in found.warnings)
    assert any("too few for a verdict" in w for w in found.warnings)


def test_an_unchanged_prompt_costs_no_call(tmp_path: Path) -> None:
    write_log(tmp_path, n=24)
    lines = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    write_lines(tmp_path / "log.jsonl", *[{**v, "feedback": []} for v in lines])
    painter = Painter()
    found = refine(tmp_path, target=painter)
    assert found.prompt == START.text and found.verdict == "unverified" and not painter.asked


def test_what_cannot_be_verified_is_said_before_the_loop(tmp_path: Path) -> None:
    lines = [line(i, feedback=[{"name": "u", "value": False}]) for i in range(8)]
    write_lines(tmp_path / "log.jsonl", *lines)
    denoiser = Listener()
    with pytest.raises(ConfigError, match="cannot be verified"):
        refine(tmp_path, target=Painter(), denoiser=denoiser)
    assert not denoiser.contexts and not (tmp_path / "run").exists()


def test_a_function_can_judge_where_no_answer_is_known(tmp_path: Path) -> None:
    lines = [line(i, feedback=[{"name": "u", "value": False, "comment": "Colours!"}])
             for i in range(60)]  # fmt: skip
    write_lines(tmp_path / "log.jsonl", *lines)
    found = refine(tmp_path, target=Painter(), metric=lambda row, text: float(text != "grey"))
    assert found.verdict == "improved" and found.refinement is not None
    assert found.refinement.metric.startswith("function:")


@pytest.fixture
def here(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with prompt and log, in which the built-in denoiser is a Listener."""
    (here / "prompt.md").write_text(START.text + "\n")
    write_log(here)
    monkeypatch.setattr("remask.api.job.make_denoiser", lambda _, own, *rest: own or Listener())
    return here


def test_a_judge_grades_where_no_answer_is_known(here: Path) -> None:
    """Two prompts, five sealed rows: ten answers and ten verdicts, all counted."""
    lines = [line(i, feedback=[{"name": "u", "value": False, "comment": "Colours!"}])
             for i in range(10)]  # fmt: skip
    write_lines(here / "log.jsonl", *lines)

    def reply(handler: Handler, body: Body) -> None:
        system, user = (message["content"] for message in body["messages"])
        text = "blue" if "colours" in system else "grey"
        if body["model"] == "judge":
            assert "names a colour" in system
            text = f"Score: {0 if 'grey' in user else 10}"
        handler.send(200, json.dumps(completion(text)).encode())

    with Server(default=reply) as server:
        done = run("prompt.md", "--traces", "log.jsonl", "--run-dir", "run", "--masker", "insert",
                   "--target", "openai:tiny", "--base-url", server.url, "--judge", "openai:judge",
                   "--rubric", "It names a colour.", "--json")  # fmt: skip
        models = Counter(body["model"] for body in server.bodies)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert models == {"tiny": 10, "judge": 10} and found["spend"]["calls"] == 20
    assert (found["test"]["baseline"], found["test"]["best"], found["refinement"]["metric"]) == (
        0,
        1,
        "judge",
    )
    assert found["verdict"] == "no evidence", "five rows never carry a verdict"


# --- the command line


def test_the_command_says_what_it_did_and_writes_the_prompt(here: Path) -> None:
    done = run("prompt.md", "--traces", "log.jsonl", "--run-dir", "run", "-o", "better.md",
               "--masker", "insert", "--iterations", 3)  # fmt: skip
    assert done.exit_code == 0, done.output
    said = done.output.splitlines()
    assert any("round 1: accepted" in text and "nats" in text for text in said)
    assert any(text.startswith("unverified: no target has answered") for text in said)
    assert any(text.startswith("  evidence: call ") for text in said)
    assert "redaction: on; replaced: nothing" in said
    assert "wrote better.md" in said and "report: run/report.md" in said
    assert SUPPORTED in (here / "better.md").read_text()
    again = run("prompt.md", "--traces", "log.jsonl", "-o", "better.md")
    assert again.exit_code == 2 and "--force" in again.output


def test_json_is_one_object_a_line_and_the_result_last(here: Path) -> None:
    done = run("prompt.md", "--traces", "log.jsonl", "--run-dir", "run", "--json", "--candidates", 2)
    found = [json.loads(text) for text in done.stdout.splitlines()]
    assert [value["kind"] for value in found[:2]] == ["TracesRead", "Started"]
    assert found[-1]["kind"] == "Result" and found[-1]["verdict"] == "unverified"
    candidates = Counter(value["round"] for value in found if value["kind"] in ("Proposed", "Refused"))
    assert max(candidates.values()) <= 2


@pytest.mark.parametrize("traces", ['"log.jsonl"', '["log.jsonl"]'])
def test_a_toml_names_the_conversations_and_flags_win(here: Path, traces: str) -> None:
    (here / "remask.toml").write_text(
        f'prompt = "prompt.md"\nrun_dir = "run"\n[refine]\ntraces = {traces}\niterations = 5\n'
    )
    done = run("remask.toml", "--iterations", 1, "--masker", "insert")
    assert done.exit_code == 0, done.output
    assert "the iteration was run" in done.output and (here / "run" / "report.md").exists()
    nothing = run("prompt.md")
    assert nothing.exit_code == 2 and "give --traces FILE" in nothing.output


def test_an_unchanged_prompt_is_said_and_not_printed(here: Path) -> None:
    write_lines(here / "log.jsonl", *[line(i) for i in range(8)])
    done = run("prompt.md", "--traces", "log.jsonl")
    assert "the prompt is unchanged, because no edit was accepted" in done.output.splitlines()
    assert START.text not in done.output


def test_redaction_is_switched_off_in_so_many_words(here: Path) -> None:
    done = run("prompt.md", "--traces", "log.jsonl", "--redact", "off")
    assert done.exit_code == 0 and "redaction: OFF" in done.output


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--denoiser", "chat:x"], "does not give"),
        (["--judge", "openai:m"], "give --target too"),
        (["--judge", "openai:m", "--target", "openai:t"], "--rubric"),
        (["--judge", "m", "--target", "t", "--metric", "f1", "--rubric", "r"], "exclude each other"),
        (["--scale", "x"], "--scale"),
    ],
)
def test_wrong_flags_are_one_sentence(here: Path, flags: list[str], says: str) -> None:
    done = run("prompt.md", "--traces", "log.jsonl", *flags)
    assert done.exit_code == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert says in done.stderr


def test_ctrl_c_stops_between_events_and_resume_ends_like_the_uncut_run(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    class Impatient(Listener):
        def infill(self, context: Context, canvases: Any, seed: int) -> Any:
            signal.raise_signal(signal.SIGINT)
            return super().infill(context, canvases, seed)

    whole = run("prompt.md", "--traces", "log.jsonl", "--run-dir", "whole")
    assert whole.exit_code == 0, whole.output
    with monkeypatch.context() as patch:
        patch.setattr("remask.api.job.make_denoiser", lambda *_: Impatient())
        done = run("prompt.md", "--traces", "log.jsonl", "--run-dir", "run")
    assert done.exit_code == 130 and "remask resume run" in done.stderr
    shown = command("show", "run")
    assert shown.exit_code == 0 and "no verdict yet" in shown.output
    rest = command("resume", "run")
    assert rest.exit_code == 0, rest.output
    with Store.read(here / "run") as cut, Store.read(here / "whole") as uncut:
        assert list(cut.events()) == list(uncut.events())
    shown = command("show", "run")
    assert "unverified: no target has answered" in shown.output and "gain in nats" in shown.output


# --- with the built-in model


def test_the_builtin_model_refines_by_a_few_conversations(tmp_path: Path) -> None:
    say: Callable[[int], str] = lambda i: ("Sorry, no.", "I cannot help.")[i % 2]  # noqa: E731
    lines = [
        line(
            i,
            user=f"Where is my parcel number {i}? It should have come on day {i}.",
            answer=say(i),
            feedback=[{"name": "u", "value": False, "comment": "Rude, no help.", "kind": "human"}],
            expected="I am sorry that it is late. I have asked the carrier and will write today.",
        )
        for i in range(4)
    ]
    write_lines(tmp_path / "log.jsonl", *lines)
    found = remask.refine(
        "You answer customers. Be short.",
        tmp_path / "log.jsonl",
        iterations=1,
        run_dir=tmp_path / "run",
        search=remask.Search(candidates=2, traces=1),
    )
    assert found.refinement is not None
    assert found.refinement.iterations == 1 and found.verdict == "unverified"
    assert found.candidates + len(found.refinement.refused) > 0
    for edit in found.edits:
        assert isinstance(edit, RefinedEdit) and sum(edit.fold_gains) > 0
    assert bool(found.edits) == (found.prompt != found.baseline.prompt)
