"""Feedback says which text, and in a long prompt which sentence, is edited."""

from dataclasses import replace

import numpy as np
import pytest

from remask.prompt import Prompt, find_sentences
from remask.propose.anchors import MIN_SENTENCES, Hints, find_failures, find_missing_words
from remask.propose.evidence import TextIndex
from remask.propose.maskers import MASKERS
from remask.types import Feedback, Trace

LONG = """You are the agent of a shop.

## Parcels
- Ask for the number of the parcel first.
- Say in which city it is.
- Never guess a date.

## Refunds
- Refund only orders that were paid by card.
- Say how many days it takes.

## Style
- Be polite. Write short sentences.
"""


def trace(text: str, score: float = 0.0) -> Trace:
    return Trace("t", "Hello", "No.", None, (Feedback("comment", text),), score)


def test_words_that_all_texts_have_say_nothing() -> None:
    index = TextIndex.build(["Answer the order.", "Refuse the order."])
    assert index.match("The order!") == [0.0, 0.0]
    assert TextIndex.build(["Only one text."]).match("only one text") == [0.0]


def test_pairs_of_words_count_beside_words() -> None:
    index = TextIndex.build(["Look up by number.", "Look at the number."])
    first, second = index.match("Looked up by mail")
    assert first > second == 0


@pytest.mark.parametrize("masker", ["insert", "sentence", "span", "library", "anchor"])
def test_edits_of_a_long_prompt_are_where_the_feedback_points(masker: str) -> None:
    prompt = Prompt(LONG)
    (failure, *_) = find_failures([trace("It was paid by card, so a refund was due.")] * 3, prompt)
    assert sum(failure.places) == pytest.approx(1)
    hints = Hints(words=("due", "other"), failures=(failure,))
    section = range(LONG.index("## Refunds"), LONG.index("## Style"))
    inside = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        masks = MASKERS[masker](prompt, lambda text: len(text.split()), rng, hints.focus(rng))
        inside += all(mask.start in section for mask in masks)
    assert inside > 25  # of 60; by chance it would be 2 of 9 places for one mask


def test_only_words_of_the_failure_are_anchors_there() -> None:
    others = [trace("No refund after a strike.")] * 3
    (failure, *_) = find_failures([trace("A refund by card is due.")] * 3 + others, Prompt(LONG))
    assert failure.words == ("due",)
    rng = np.random.default_rng(0)
    assert Hints(words=("due", "strike"), failures=(failure,)).focus(rng).words == ("due",)


def test_words_that_users_say_too_are_anchors_of_a_failure() -> None:
    asked = replace(trace("Refund also in a strike."), query="My refund, it was a strike.")
    assert find_missing_words([asked] * 3, LONG) == ()
    assert find_failures([asked] * 3, Prompt(LONG))[0].words == ("strike",)
    assert find_failures([asked] * 2, Prompt(LONG))[0].words == ()  # of one user, perhaps


def test_short_prompts_and_right_answers_give_no_places() -> None:
    short = Prompt("Be kind. Be short.")
    assert len(find_sentences(short)) < MIN_SENTENCES <= len(find_sentences(Prompt(LONG)))
    assert find_failures([trace("Be kind.")], short) == ()
    assert find_failures([trace("A refund is due.", 1.0)], Prompt(LONG)) == ()
    assert find_failures([trace("Nothing of that.")], Prompt(LONG)) == ()


def test_without_failures_the_draws_stay_as_they_were() -> None:
    rng, other = np.random.default_rng(1), np.random.default_rng(1)
    assert Hints().focus(rng) == Hints()
    assert rng.integers(100) == other.integers(100)
