"""Canvases as rows of tokens: natural spaces, demands at edges of holes, windows, loose ends."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remask.dlm.canvas import (
    CanvasRow,
    Kind,
    clip_middle,
    join,
    settle,
    to_row,
    trim_dangling,
    vocabulary,
    window,
)
from remask.ports import Hole

MASK = -1


class Words:
    """Encodes each word with the space before it, and each space before another space alone."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        found = list(re.finditer(r" ?[^\s]+|\s", text))
        for match in found:
            if match.group() not in self.names:
                self.names.append(match.group())
        ids = [self.names.index(match.group()) for match in found]
        return ids, [match.span() for match in found]

    def decode(self, ids: list[int]) -> list[str]:
        return ["_" if i == MASK else self.names[i] for i in ids]


def tokens(*parts: str | Hole) -> list[str]:
    words = Words()
    return words.decode(list(to_row(settle(parts, [None] * 9), words.encode, MASK).ids))


@pytest.mark.parametrize(
    ("canvas", "expected"),
    [
        (("Classify the ", Hole("x", 2), " now."), ["Classify", " the", "_", "_", " now."]),
        (("Classify", Hole("x", 1), "now"), ["Classify", "_", " now"]),
        ((Hole("x", 1), ", then"), ["_", ", then"[:1], " then"]),
        (("One.\n", Hole("x", 1), "\nTwo"), ["One.", "\n", "_", "\n", "Two"]),
        (("a ", Hole("x", 1), " ", Hole("y", 1), " b"), ["a", "_", "_", " b"]),
    ],
)
def test_the_space_before_a_hole_belongs_to_the_hole(
    canvas: tuple[str | Hole, ...], expected: list[str]
) -> None:
    assert tokens(*canvas) == expected


def kinds(*parts: str | Hole) -> list[int]:
    row = to_row(settle(parts, [None] * 9), Words().encode, MASK)
    return [kind for kind, i in zip(row.kinds, row.ids, strict=True) if i == MASK]


def test_demands_at_the_edges_of_a_hole() -> None:
    solid, spaced, wordy, final, capital = Kind
    middle = kinds("Classify the ", Hole("sentiment of it", 4), " as positive.")
    assert middle == [solid | spaced, 0, 0, solid]
    assert kinds("Answer with ", Hole("a b c", 3), ".")[-1] == solid | wordy
    sentence = kinds("Be kind. ", Hole("Read it.", 3), " Then answer.")
    assert sentence == [solid | spaced | capital, 0, solid | final]
    assert kinds("Be kind. ", Hole("", 3))[-1] == solid | final
    assert kinds("Be kind. ", Hole("", 2))[-1] == solid
    assert kinds("Be (", Hole("x", 2), ")") == [solid, solid]
    assert kinds("- one\n", Hole("two", 2), "\n- three") == [solid, solid]
    assert kinds(Hole("You.", 1)) == [solid | capital]


def test_vocabulary_meets_the_demands() -> None:
    texts = ["", " the", "the", " The", ".", " end.", " ", "\ufffd", "7", ","]
    words = vocabulary(texts, special=[0])
    solid, spaced, wordy, final, capital = Kind

    def allowed(kind: int) -> set[str]:
        banned = words.banned[kind].tolist()
        return {text for text, no in zip(texts, banned, strict=True) if not no}

    everything = set(texts) - {"", "\ufffd"}
    assert allowed(0) == everything
    assert allowed(solid) == everything - {" "}
    assert allowed(solid | spaced) == {" the", " The", " end."}
    assert allowed(solid | final) == {".", " end."}
    assert allowed(solid | wordy) == {" the", "the", " The", "7"}
    assert allowed(solid | capital) == {" The", ".", "7", ","}
    assert words.repeatable == {8}


@pytest.mark.parametrize(
    ("left", "right", "whole"),
    [
        ("the", "text", "the text"),
        ("the ", "text", "the text"),
        ("the", " text", "the text"),
        ("the ", ".", "the."),
        ("the ", " text", "the text"),
        ("(", "x", "(x"),
        ("a\n", "b", "a\nb"),
        ("", "b", "b"),
        ("b ", "", "b "),
    ],
)
def test_joins_have_natural_spaces(left: str, right: str, whole: str) -> None:
    assert join(left, right) == whole


def test_filled_holes_become_text() -> None:
    canvas = ("Say ", Hole("x", 2), " or ", Hole("y", 0), " to ", Hole("z", 3), ".")
    assert settle(canvas, ["hi", "", None]) == ["Say hi or to ", canvas[5], "."]
    assert settle(canvas, [None, "", "them"]) == ["Say ", canvas[1], " or to them."]


SENTENCES = st.lists(
    st.sampled_from(["One two three. ", "Four. ", "five " * 30 + ". ", "\n", Hole("x y.", 4)]),
    min_size=1,
    max_size=30,
)


def row_of(parts: list[str | Hole]) -> CanvasRow:
    return to_row(settle(tuple(parts), [None] * 99), Words().encode, MASK)


@given(SENTENCES, st.integers(8, 60))
def test_windows_hold_whole_holes_within_the_limit(parts: list[str | Hole], limit: int) -> None:
    row = row_of(parts)
    if not row.holes:
        return
    view = window(row, limit)
    assert 0 <= view.start <= row.holes[0][0]
    assert view.holes >= 1
    assert row.holes[view.holes - 1][1] <= view.stop <= len(row.ids)
    assert view.stop - view.start <= limit
    if view.holes < len(row.holes):
        assert view.stop <= row.holes[view.holes][0]
    if len(row.ids) <= limit:
        assert (view.start, view.stop) == (0, len(row.ids))


def test_windows_are_cut_at_sentence_ends() -> None:
    parts: list[str | Hole] = ["A b c d. " * 20, Hole("x.", 5), " E f g h. " * 20]
    row = row_of(parts)
    view = window(row, 30)
    assert view.start in row.cuts
    assert view.stop in row.cuts
    assert 22 <= view.stop - view.start <= 30


def test_a_hole_longer_than_the_window_is_not_cut() -> None:
    row = row_of(["Before it. ", Hole("x", 50), " After it."])
    view = window(row, 20)
    assert (view.start, view.stop) == row.holes[0]


def test_holes_far_apart_get_windows_of_their_own() -> None:
    row = row_of([Hole("x", 3), "A b c d. " * 20, Hole("y", 3)])
    assert window(row, 30).holes == 1
    assert window(row, 200).holes == 2


def test_long_text_is_clipped_in_the_middle() -> None:
    assert clip_middle("a b\nc d e f", 4) == "a b ... e f"
    assert clip_middle("a b", 4) == "a b"


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
    assert trim_dangling(text) == mended


WORDS = st.sampled_from(["the", "and", "film", "Read", "it.", "You", "is,", '"', "now!", "\n", "."])


@given(st.lists(WORDS, max_size=12).map(" ".join))
def test_mending_only_takes_off_and_is_done_at_once(text: str) -> None:
    mended = trim_dangling(text)
    assert text.startswith(mended[:-1])
    assert trim_dangling(mended) == mended
    assert bool(mended) == bool(text)
