"""Prompts of several components: evidence chooses what is edited, and edits stay where they belong."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.scripted_denoiser import ScriptedDenoiser
from remask.api.build_proposer import make_prompt_proposer
from remask.config import Config
from remask.ports import find_new_spans, name_reward
from remask.prompt import Edit, Prompt, join_components
from remask.propose.components import choose_components, divide_traces, share_by_evidence
from remask.propose.redacting import RedactingProposer
from remask.types import Feedback, Trace

TEXTS = {
    "system": "You help the customers of a shop. Be polite.",
    "tool:lookup": "Look up an order by its number.",
    "tool:refund": "Refund an order that was paid.",
}


def trace(text, response="", **more):
    return Trace("t", "Hello", response, None, (Feedback("comment", text),) if text else (), 0.0, **more)


def share(*traces):
    return share_by_evidence(Prompt.parse(join_components(TEXTS)).components, traces)


def test_without_evidence_the_shares_are_equal():
    assert set(share(trace("")).values()) == {1 / 3}


def test_feedback_with_words_of_a_component_gives_it_most():
    found = share(trace("It should look up parcels by e-mail as well."))
    assert max(found, key=found.get) == "tool:lookup"
    assert sum(found.values()) == pytest.approx(1)
    assert found["tool:lookup"] > 0.7
    assert min(found.values()) > 0


def test_words_that_all_components_have_are_no_evidence():
    same = {"a": "Answer the order.", "b": "Refuse the order."}
    found = share_by_evidence(Prompt.parse(join_components(same)).components, [trace("The order is wrong.")])
    assert set(found.values()) == {0.5}


def test_calls_of_a_tool_count_where_feedback_says_nothing():
    found = share(trace("", 'refund(number="1")'))
    assert max(found, key=found.get) == "tool:refund"


def test_components_that_took_part_count_where_feedback_says_nothing():
    part = trace("")
    found = share(trace("", parts={"system": part}))
    assert max(found, key=found.get) == "system"


def test_answers_that_are_right_are_no_evidence():
    right = Trace("t", "", 'refund(number="1")', score=1.0)
    assert set(share(right).values()) == {1 / 3}


def read_by(*traces):
    return divide_traces(Prompt.parse(join_components(TEXTS)).components, traces)


def test_each_component_reads_its_own_part_of_a_trace():
    part = Trace("inner", "q", "r")
    found = read_by(trace("", parts={"system": part}))
    (own,) = found["system"]
    assert (own.id, own.query) == ("t", "q")
    assert found["tool:lookup"] == []


def test_each_component_reads_failures_that_speak_of_it_and_all_others():
    mail = replace(trace("It should look up parcels by e-mail as well."), id="mail")
    none, right = replace(trace(""), id="none"), Trace("right", "q", "r", score=1.0)
    found = {name: [t.id for t in own] for name, own in read_by(mail, none, right).items()}
    assert found["tool:lookup"] == ["mail", "none", "right"]
    assert found["tool:refund"] == ["none", "right"]


weights = st.dictionaries(st.sampled_from("abcde"), st.floats(0.01, 10), min_size=1)


@given(weights, st.integers(0, 60))
def test_candidates_are_divided_by_weight(weights, n):
    chosen = choose_components(weights, n)
    assert len(chosen) == n
    counts = Counter(names[0] for names in chosen)
    for name, weight in weights.items():
        assert abs(counts[name] - n * weight / sum(weights.values())) <= len(weights)
    assert all(1 <= len(set(names)) == len(names) <= 2 for names in chosen)


def make(texts=TEXTS, phrases=("kindly answer",), **settings):
    start = Prompt.parse(join_components(texts))
    config = Config(prompt=start.to_source(), search={"maskers": ["insert", "span"], **settings})
    return start, make_prompt_proposer(config, start, ScriptedDenoiser(phrases), (), 0)


def test_proposals_of_the_whole_prompt_apply_to_it():
    start, proposer = make()
    found = proposer.propose(start, [trace("Say which order it is.")], 24, seed=3)
    assert len(found) == 24
    assert any(len(one.components) == 2 for one in found)
    for one in found:
        edits = [Edit(*edit) for edit in one.edits]
        assert start.apply(edits).text == one.prompt.text
        changed = [n for n, part in one.prompt.components.items() if part.text != TEXTS[n]]
        assert set(changed) <= set(one.components)
        new = {one.prompt.text[a:b] for a, b in find_new_spans(one.edits)}
        assert new == {text for _, _, text in one.edits if text}
        proposer.explain(one, [])


def test_a_component_without_plain_words_is_never_edited():
    start, proposer = make({**TEXTS, "reply": "[[keep]]Thanks.[[/keep]]"})
    found = proposer.propose(start, [], 12, seed=0)
    assert not any("reply" in one.components for one in found)


def test_limits_hold_for_each_component():
    # A component may grow to three times its words, and to 60 words in any case.
    long = " ".join(f"word{i}" for i in range(70))
    start, proposer = make(
        {"system": "Be kind to all of them. " * 60, "tool:f": "Find it."}, (long,), maskers=["insert"]
    )
    for one in proposer.propose(start, [], 12, seed=0):
        if one.components == ("tool:f",):
            assert one.violation.startswith("tool:f: too long")
        if one.components == ("system",):
            assert "too long" not in one.violation


def test_rewards_move_candidates_to_a_component():
    start, proposer = make()
    key = name_reward("tool:refund")
    few, many = (
        sum("tool:refund" in one.components for one in proposer.propose(start, [], 24, 1, {key: reward}))
        for reward in (0.25, 4.0)
    )
    assert few < many


def test_the_parts_of_a_trace_are_read_without_secrets():
    start, inner = make()
    read = []

    class Listening:
        def propose(self, parent, traces, n, seed, rewards):
            read.extend(traces)
            return inner.propose(parent, traces, n, seed, rewards)

    part = Trace("inner", "my key is SECRET", "SECRET", "SECRET", (Feedback("comment", "SECRET"),), 0.0)
    proposer = RedactingProposer(Listening(), lambda text: text.replace("SECRET", "<KEY>"))
    proposer.propose(start, [trace("SECRET", parts={"system": part})], 4, 0)
    assert "<KEY>" in repr(read) and "SECRET" not in repr(read)
