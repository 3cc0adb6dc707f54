import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

gepa = pytest.importorskip("gepa")

from gepa.proposer.base import CandidateProposal  # noqa: E402
from gepa.strategies.acceptance import AcceptanceCriterion  # noqa: E402
from gepa.strategies.proposal_sampling import PxNSampling, SameParentSampling  # noqa: E402
from gepa.strategies.proposal_selection import BestImprovement  # noqa: E402

import remask  # noqa: E402
from fakes.scripted_denoiser import ScriptedDenoiser  # noqa: E402
from fakes.server import Server, replying  # noqa: E402
from fakes.small_programs import LABELS, ROWS, SEED, chosen  # noqa: E402
from fakes.writers import filled  # noqa: E402
from remask.errors import ConfigError  # noqa: E402
from remask.integrations.gepa import DiffusionReflection, HardBudget, PairedAcceptance  # noqa: E402
from remask.integrations.records import read_record  # noqa: E402

PHRASES = ("be kind", "answer in short", "think twice", "stay calm", "name the topic", "weigh it")
RECORD = {"Inputs": "a query", "Generated Outputs": "an answer", "Feedback": "not good"}


class Watched(ScriptedDenoiser):
    """Remembers what it was asked."""

    asked: list = []  # noqa: RUF012

    def infill(self, context, canvases, seed):
        self.asked.append((context, canvases))
        return super().infill(context, canvases, seed)


@pytest.fixture
def denoiser():
    Watched.asked = []
    return Watched(PHRASES)


def data(rows=ROWS):
    return [{"input": text, "additional_context": {}, "answer": label} for text, label in rows]


def run(task_lm, reflection, budget, **more):
    return gepa.optimize(
        seed_candidate=reflection.seed_candidate,
        trainset=data(),
        valset=data(),
        task_lm=task_lm,
        reflection_strategy=reflection,
        acceptance_criterion=PairedAcceptance(),
        stop_callbacks=budget,
        seed=0,
        **more,
    )


def fickle(messages):
    """Right about as often as the prompt says so, by chance of the words."""
    at = hash_of(messages[0]["content"] + messages[1]["content"])
    return LABELS[at % 2]


def hash_of(text: str) -> int:
    return sum(ord(char) * (i + 1) for i, char in enumerate(text))


def test_reflect_many_denoises_jobs_of_one_parent_together(denoiser):
    reflection = DiffusionReflection({"system": "Sort the mail. Be quick."}, denoiser=denoiser)
    candidate = reflection.seed_candidate
    jobs = [(candidate, {"system": [{**RECORD, "Inputs": f"query {i}"}]}, ["system"]) for i in range(4)]
    made = reflection.reflect_many(jobs)
    context, canvases = Watched.asked[0]
    assert len(canvases) == 4
    assert {trace.query for trace in context} == {f"query {i}" for i in range(4)}
    texts = [proposal.new_texts["system"] for proposal, _ in made]
    assert len({*texts, candidate["system"]}) == 5
    assert all(next is reflection for _, next in made)


def test_reflect_keeps_kept_text_and_variables(denoiser):
    reflection = DiffusionReflection(
        {"p": "Sort {mail} now. [[keep]]Never lie.[[/keep]] Be quick about it."}, denoiser=denoiser
    )
    candidate = reflection.seed_candidate
    assert "[[" not in candidate["p"]
    for _ in range(12):
        proposal, reflection = reflection.reflect(candidate, {"p": [RECORD]}, ["p"])
        text = proposal.new_texts.get("p", candidate["p"])
        assert "Never lie." in text and text.count("{mail}") == 1
        candidate = {"p": text}
    with pytest.raises(ConfigError, match="has lost its"):
        reflection.reflect({"p": "Something else."}, {"p": [RECORD]}, ["p"])


def test_reflect_proposes_no_text_twice_and_none_without_records(denoiser):
    reflection = DiffusionReflection(denoiser=denoiser)
    candidate = {"a": "Sort the mail. Be quick.", "b": "{only} {variables}"}
    seen = set()
    for _ in range(20):
        texts = reflection(
            candidate=candidate,
            reflective_dataset={"a": [RECORD], "b": [RECORD]},
            components_to_update=["a", "b", "c"],
        )
        assert set(texts) <= {"a"}
        assert not seen & set(texts.values())
        seen |= set(texts.values())
    assert reflection(candidate, {"a": []}, ["a"]) == {}
    assert reflection.total_cost == 0


def test_total_cost_counts_the_calls_of_an_api():
    prices = {"input_price": 1.0, "output_price": 2.0}
    candidate = {"p": "Sort the mail. Be quick."}
    writer = replying(lambda messages: filled({"messages": messages}))
    with Server(default=writer) as server:
        place = {"base_url": server.url, "api_key_env": ""}
        denoiser = remask.Denoiser("chat:writer", **place, **prices)
        reflection = DiffusionReflection(candidate, denoiser=denoiser)
        assert reflection.total_cost == 0
        for calls in range(1, 4):
            reflection.reflect(candidate, {"p": [RECORD]}, ["p"])
            assert server.requests >= calls  # the server reports 7 and 3 tokens of each
            assert reflection.total_cost == pytest.approx(server.requests * (7 + 2 * 3) / 1e6)
        unpriced = remask.Denoiser("chat:writer", **place)
        assert not hasattr(DiffusionReflection(candidate, denoiser=unpriced), "total_cost")


def test_reflect_refuses_words_of_records():
    denoiser = ScriptedDenoiser(("the secret parcel number nine",))
    reflection = DiffusionReflection(denoiser=denoiser)
    record = {**RECORD, "Inputs": "where is the secret parcel number nine"}
    proposal, _ = reflection.reflect({"p": "Sort the mail."}, {"p": [record]}, ["p"])
    assert any("copies" in why for why in proposal.metadata["remask:refused:p"])


@pytest.mark.parametrize(
    ("sampling", "selection", "proposals", "accepted"),
    [
        (None, None, 1, None),
        (SameParentSampling(3), BestImprovement(), 3, 1),
        (PxNSampling(2, 2), None, 4, None),
    ],
)
@pytest.mark.parametrize("limit", [30, 61, 100])
def test_hard_budget_is_never_passed_by_gepa(denoiser, sampling, selection, proposals, accepted, limit):
    calls = []

    def counted(messages):
        calls.append(messages)
        return fickle(messages)

    result = run(
        counted,
        DiffusionReflection({"system_prompt": SEED}, denoiser=denoiser),
        HardBudget(limit, proposals=proposals, accepted=accepted),
        sampling_strategy=sampling,
        selection_strategy=selection,
    )
    assert len(calls) == result.total_metric_calls <= limit
    worst = 6 * proposals + 8 * (accepted or proposals)
    assert len(calls) > limit - worst  # and stops only where the next iteration might not fit


def test_paired_acceptance_accepts_improvements_in_gepa(denoiser):
    def likes_kindness(messages):
        right = dict(ROWS)[messages[1]["content"]]
        return right if "kind" in messages[0]["content"].lower() else "neither"

    result = run(
        likes_kindness, DiffusionReflection({"system_prompt": SEED}, denoiser=denoiser), HardBudget(400)
    )
    assert "kind" in result.best_candidate["system_prompt"].lower()
    assert max(result.val_aggregate_scores) == 1
    # Right answers are read from what gepa's evaluator says.
    assert all(trace.desired in LABELS for trace in Watched.asked[0][0])


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 1.0]), min_size=1, max_size=5), st.data())
@settings(deadline=None)
def test_paired_acceptance_rejects_equal_scores(scores, drawn):
    order = drawn.draw(st.permutations(scores))
    same = CandidateProposal({}, [0], None, list(scores), list(order))
    better = CandidateProposal({}, [0], None, list(scores), [s + 1 for s in scores])
    criterion = PairedAcceptance()
    assert isinstance(criterion, AcceptanceCriterion)
    assert not criterion.should_accept(same, None)
    assert PairedAcceptance(cautious=True).should_accept(better, None)
    assert "rows" in criterion.reject_reason(same, None)


@pytest.mark.parametrize(
    ("record", "desired", "score"),
    [
        ({"Inputs": {"text": "q"}, "Generated Outputs": {"label": "a"}}, None, None),
        ({"inputs": {"q": "q"}, "outputs": "a", "expectations": {"expected_response": "b"},
          "score": 0.5, "rationales": {}}, "b", 0.5),
        ({"input": "q", "output": "a", "Scores (Higher is Better)": {"x": 0.0, "y": 1.0}},
         None, 0.5),
        ({"Inputs": "q", "Generated Outputs": "a", "Feedback": "The generated response is "
          "incorrect. The correct answer is 'b'. Ensure that the correct answer is included in "
          "the response exactly as it is."}, "b", 0.0),
        ({"Inputs": "q", "Generated Outputs": "a", "Feedback": "The generated response is "
          "correct. The response include the correct answer 'a'"}, "a", 1.0),
    ],
)  # fmt: skip
def test_read_record_reads_records_of_every_host(record, desired, score):
    trace = read_record(record)
    assert (trace.query, trace.response) == ("q", "a")
    assert (trace.desired, trace.score) == (desired, score)
    assert not re.search("Ensure that", trace.desired or "")


@pytest.mark.slow
def test_builtin_models_run_in_gepa():
    reflection = DiffusionReflection(
        {"system_prompt": SEED}, labels=LABELS, answer="The sentiment is {label}."
    )
    prompts = set()

    def told(messages):
        prompts.add(messages[0]["content"])
        return chosen(messages)

    result = run(
        told,
        reflection,
        HardBudget(60, proposals=4, accepted=1),
        sampling_strategy=SameParentSampling(4),
        selection_strategy=BestImprovement(),
        skip_perfect_score=False,  # rounding decides whether the seed is right on all eight rows
    )
    assert 8 < result.total_metric_calls <= 60
    assert len(prompts) >= 5  # the seed and four candidates of one batch
