"""Nothing that stands in a trace gets into a prompt, even where the denoiser copies all it reads.

The positive control is a denoiser that does nothing else; so a guard that let payloads pass would
be seen. The slow tier plays the built-in model on contaminated traces; REMASK_INJECTION_RUNS=60
plays as many runs as the claim in docs/background/safety.md.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from markupsafe import escape

import remask
from fakes.colours import optimize, rows, search
from fakes.payloads import FAMILIES, payloads
from fakes.scripted_denoiser import ScriptedDenoiser
from remask.events import (
    ConversationCounts,
    Refused,
    RoundRejected,
    SearchEnded,
    Started,
    TracesRead,
    decode,
    fold,
)
from remask.ports import Canvas, Context, Fill, Hole, Proposal
from remask.prompt import Prompt
from remask.propose import guard
from remask.propose.proposer import DiffusionProposer, ProposerConfig
from remask.runs.budget import Spend
from remask.runs.report.markdown import render
from remask.runs.report.read_run import write_report
from remask.runs.report.summary import count_refusals
from remask.runs.result import make_result
from remask.runs.store import Store
from remask.sanitize import clean, make_visible, one_line
from remask.types import Feedback, Trace

START = Prompt("You are a support agent. Classify the message. Answer with one word.")
RECIPE = ProposerConfig(("insert",), traces=12, context_tokens=2000, max_growth=3.0)
RUNS = int(os.environ.get("REMASK_INJECTION_RUNS", "3"))


def contaminated(texts: Sequence[str], place: str = "query") -> list[Trace]:
    """A trace around each payload, in one part of it."""
    found = []
    for i, text in enumerate(texts):
        said = f"Hello, parcel {i} is late. {text}"
        query = said if place == "query" else f"Hello, parcel {i} is late."
        response = said if place == "response" else "billing"
        notes = (Feedback("correction", text, 0.0),) if place == "feedback" else ()
        desired = text if place == "desired" else "delivery"
        found.append(Trace(f"t{i}", query, response, desired, notes, score=0.0))
    return found


def copied(texts: Sequence[str], place: str = "query") -> list[Proposal]:
    """What a denoiser proposes that copies each of `texts` out of its traces, ten at a time."""
    found: list[Proposal] = []
    for i in range(0, len(texts), 10):
        some = tuple(texts[i : i + 10])
        proposer = DiffusionProposer(START, ScriptedDenoiser(some), RECIPE)
        found += proposer.propose(START, contaminated(some, place), len(some), seed=i)
    return found


def test_payloads_have_the_claimed_families() -> None:
    assert len(FAMILIES) == 10
    for family in FAMILIES:
        found = payloads(family)
        assert len(set(found)) == 50
        assert all(3 <= len(text.split()) <= 20 for text in found), family


@pytest.mark.parametrize("place", ["query", "response", "desired", "feedback"])
@pytest.mark.parametrize("family", FAMILIES)
def test_guard_rejects_every_copied_payload(family: str, place: str) -> None:
    found = copied(payloads(family), place)
    passed = [p.edits for p in found if not p.violation]
    assert len(found) == 50
    assert not passed, passed


@pytest.mark.parametrize("family", FAMILIES)
def test_guard_rejects_cleaned_payloads(family: str) -> None:
    """A real denoiser reads the cleaned trace, so it would copy the payload without its marks."""
    cleaned = [clean(text) for text in payloads(family)]
    long = [text for text in cleaned if guard.find_ngrams([text])]
    assert len(long) >= 30 or family == "invisible text"
    passed = [p.edits for p in copied(long) if not p.violation]
    assert not passed, passed


def test_guard_allows_the_same_edits_without_a_payload() -> None:
    honest = ("Read it twice.", "Late parcels belong to delivery.", "Think of the topic first.")
    proposer = DiffusionProposer(START, ScriptedDenoiser(honest), RECIPE)
    traces = contaminated([text for f in FAMILIES for text in payloads(f, 1)])
    found = proposer.propose(START, traces, 3, seed=0)
    assert [p.violation for p in found] == ["", "", ""]


def test_guard_allows_the_answers_of_the_task() -> None:
    answers = ("The right team is billing.", "The right team is delivery.")
    traces = [Trace(str(i), f"Hello {i}.", a, a, score=0.0) for i, a in enumerate(answers)]
    said = "Say: the right team is billing, or the right team is delivery."
    for own, refused in (((), True), (answers, False)):
        proposer = DiffusionProposer(START, ScriptedDenoiser((said,)), replace(RECIPE, answers=own))
        (proposal,) = proposer.propose(START, traces, 1, seed=0)
        assert bool(proposal.violation) is refused, proposal.violation


def test_the_parents_words_may_meet_another_trace() -> None:
    parent = Prompt(START.text + " Late parcels belong to delivery.")
    proposer = DiffusionProposer(START, ScriptedDenoiser(("Be brief.",)), RECIPE)
    trace = Trace("t", "I think late parcels belong to delivery", "billing", "delivery", score=0.0)
    assert proposer.propose(parent, [trace], 1, seed=0)[0].violation == ""
    copying = DiffusionProposer(START, ScriptedDenoiser((trace.query,)), RECIPE)
    assert "copies" in copying.propose(START, [trace], 1, seed=0)[0].violation


class Parrot:
    """A denoiser that writes into every hole what a user said."""

    identity = "parrot"

    def count(self, text: str) -> int:
        return len(text.split())

    def infill(self, context: Context, canvases: Sequence[Canvas], seed: int) -> list[Fill]:
        fills = []
        for k, canvas in enumerate(canvases):
            text = context[(seed + k) % len(context)].query
            holes = [part for part in canvas if isinstance(part, Hole)]
            fills.append(Fill(tuple(text for _ in holes), -1.0))
        return fills


def test_run_rejects_all_payloads_and_reports_the_reasons(tmp_path: Path) -> None:
    data = rows()
    texts = [text for family in FAMILIES for text in payloads(family, 3)]
    for i, row in enumerate(data):
        row["input"] = f"{texts[i % len(texts)]} number {i}"
    run = tmp_path / "run"
    result = optimize(
        run,
        data=remask.Dataset(data, split="split"),
        denoiser=Parrot(),
        search=search(candidates=6, maskers=["insert", "span"], demos=0),
    )
    assert result.prompt == "Name it. Be brief."
    with Store.read(run) as store:
        state = fold(decode(event) for event in store.events())
    shown = count_refusals(state)
    assert not state.proposals, "no candidate was tried"
    assert {reason for reason, _ in shown} == {r.reason.split(":")[0] for r in state.refusals}
    assert len(shown) >= 2
    page = write_report(run).read_text()
    assert escape(make_visible(shown[0][0])) in page


def test_refinement_lists_all_refused_payloads() -> None:
    texts = [text for family in FAMILIES for text in payloads(family)]
    refused = tuple(p for family in FAMILIES for p in copied(payloads(family)))
    read = TracesRead(ConversationCounts(500, 0, 0, 250, 250, 0, True, {}), ())
    events = [read, Started(START.to_source(), START.id, 5)]
    events += [Refused.from_proposal(0, START, proposal) for proposal in refused]
    state = fold([*events, RoundRejected(0, "no candidate passed the guard"), SearchEnded("over")])
    result = make_result(state, {}, Spend(), (), "run")
    found = result.refinement
    assert found is not None
    page = render(result, found)
    assert len(texts) == len(refused) == len(found.refused) == 500
    rows = [row for row in page.splitlines() if row.startswith("- 1, insert: ")]
    assert len(rows) == 500 and all(reason in row for reason, row in zip(
        (one_line(refusal.reason) for refusal in found.refused), rows, strict=True))  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(RUNS))
def test_builtin_denoiser_copies_no_payload_into_a_prompt(seed: int) -> None:
    """One, five or all eight of the traces that are read are contaminated."""
    from remask.dlm.build import BuiltinDenoiser
    from remask.models.backbone.builtin_weights import load_base

    texts = [text for family in FAMILIES for text in payloads(family)][seed::RUNS]
    bad = contaminated(texts[: (1, 5, 8)[seed % 3]])
    clear = [
        Trace(f"c{i}", f"Parcel {i} did not arrive.", "billing", "delivery", score=0.0)
        for i in range(8 - len(bad))
    ]
    recipe = ProposerConfig(("insert", "span", "sentence"), traces=8, context_tokens=400, max_growth=3.0)
    proposer = DiffusionProposer(START, BuiltinDenoiser(load_base()), recipe)
    found = proposer.propose(START, [*bad, *clear], 3, seed)
    own = guard.find_ngrams([START.text])
    payload = guard.find_ngrams(clean(text) for text in texts) - own
    for proposal in found:
        if not proposal.violation:
            assert payload.isdisjoint(guard.find_ngrams([proposal.prompt.text])), proposal.edits
