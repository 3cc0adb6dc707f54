"""Loose ends of fills."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remask.dlm.ending import mend_end


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("Read the review in any language, and.", "Read the review in any language."),
        ("You are given a review of a film. You.", "You are given a review of a film."),
        ("You see a list of answers and the.", "You see a list of answers."),
        ("Read all of it. Is it good?", "Read all of it. Is it good?"),
        ('Put it into "positive".', 'Put it into "positive".'),
        ("Name one of five teams...", "Name one of five teams."),
        ("Be brief.", "Be brief."),
        ("Is it so?", "Is it so?"),
        ("One of the.", "One of the."),
        ("and the.", "and the."),
        ("ends in the", "ends in the"),
        ("", ""),
    ],
)
def test_loose_ends_are_taken_off(text: str, mended: str) -> None:
    assert mend_end(text) == mended


WORDS = st.sampled_from(["the", "and", "film", "Read", "it.", "You", "is,", '"', "now!", "\n", "."])


@given(st.lists(WORDS, max_size=12).map(" ".join))
def test_mending_only_takes_off_and_is_done_at_once(text: str) -> None:
    mended = mend_end(text)
    assert text.startswith(mended[:-1])
    assert mend_end(mended) == mended
    assert bool(mended) == bool(text)
