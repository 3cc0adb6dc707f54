"""Canvases as rows of tokens: natural spaces, constraints at the edges of holes, windows, ends."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remask.dlm.canvas import (
    MAX_BATCH_CANVASES,
    CanvasRow,
    TokenConstraint,
    apply_fills,
    choose_window,
    clip_middle,
    cut_batches,
    encode_canvas,
    join,
    make_vocabulary_rules,
    trim_dangling,
)
from remask.ports import Hole

MASK = -1


class Words:
    """Encodes each word with the space before it, and a space before another space separately."""

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
    return words.decode(list(encode_canvas(apply_fills(parts, [None] * 9), words.encode, MASK).ids))


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
def test_space_before_a_hole_belongs_to_the_hole(canvas: tuple[str | Hole, ...], expected: list[str]) -> None:
    assert tokens(*canvas) == expected


def constraints(*parts: str | Hole) -> list[int]:
    row = encode_canvas(apply_fills(parts, [None] * 9), Words().encode, MASK)
    return [value for value, i in zip(row.constraints, row.ids, strict=True) if i == MASK]


def test_constraints_at_the_edges_of_a_hole() -> None:
    not_blank, space, no_punctuation, end, no_lower = TokenConstraint
    middle = constraints("Classify the ", Hole("sentiment of it", 4), " as positive.")
    assert middle == [not_blank | space, 0, 0, not_blank]
    assert constraints("Answer with ", Hole("a b c", 3), ".")[-1] == not_blank | no_punctuation
    sentence = constraints("Be kind. ", Hole("Read it.", 3), " Then answer.")
    assert sentence == [not_blank | space | no_lower, 0, not_blank | end]
    assert constraints("Be kind. ", Hole("", 3))[-1] == not_blank | end
    assert constraints("Be kind. ", Hole("", 2))[-1] == not_blank
    assert constraints("Be (", Hole("x", 2), ")") == [not_blank, not_blank]
    assert constraints("- one\n", Hole("two", 2), "\n- three") == [not_blank, not_blank]
    assert constraints(Hole("You.", 1)) == [not_blank | no_lower]


def test_vocabulary_rules_ban_by_constraint() -> None:
    texts = ["", " the", "the", " The", ".", " end.", " ", "\ufffd", "7", ","]
    rules = make_vocabulary_rules(texts, special=[0])
    not_blank, space, no_punctuation, end, no_lower = TokenConstraint

    def allowed(constraint: int) -> set[str]:
        banned = rules.banned[constraint].tolist()
        return {text for text, bad in zip(texts, banned, strict=True) if not bad}

    everything = set(texts) - {"", "\ufffd"}
    assert allowed(0) == everything
    assert allowed(not_blank) == everything - {" "}
    assert allowed(not_blank | space) == {" the", " The", " end."}
    assert allowed(not_blank | end) == {".", " end."}
    assert allowed(not_blank | no_punctuation) == {" the", "the", " The", "7"}
    assert allowed(not_blank | no_lower) == {" The", ".", "7", ","}
    assert rules.repeatable == {8}


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
def test_join_has_natural_spaces(left: str, right: str, whole: str) -> None:
    assert join(left, right) == whole


def test_apply_fills_turns_filled_holes_into_text() -> None:
    canvas = ("Say ", Hole("x", 2), " or ", Hole("y", 0), " to ", Hole("z", 3), ".")
    assert apply_fills(canvas, ["hi", "", None]) == ["Say hi or to ", canvas[5], "."]
    assert apply_fills(canvas, [None, "", "them"]) == ["Say ", canvas[1], " or to them."]


SENTENCES = st.lists(
    st.sampled_from(["One two three. ", "Four. ", "five " * 30 + ". ", "\n", Hole("x y.", 4)]),
    min_size=1,
    max_size=30,
)


def row_of(parts: list[str | Hole]) -> CanvasRow:
    return encode_canvas(apply_fills(tuple(parts), [None] * 99), Words().encode, MASK)


@given(SENTENCES, st.integers(8, 60))
def test_window_has_whole_holes_within_the_limit(parts: list[str | Hole], limit: int) -> None:
    row = row_of(parts)
    if not row.holes:
        return
    view = choose_window(row, limit)
    assert 0 <= view.start <= row.holes[0][0]
    assert view.holes >= 1
    assert row.holes[view.holes - 1][1] <= view.stop <= len(row.ids)
    assert view.stop - view.start <= limit
    if view.holes < len(row.holes):
        assert view.stop <= row.holes[view.holes][0]
    if len(row.ids) <= limit:
        assert (view.start, view.stop) == (0, len(row.ids))


def test_window_is_cut_at_sentence_ends() -> None:
    parts: list[str | Hole] = ["A b c d. " * 20, Hole("x.", 5), " E f g h. " * 20]
    row = row_of(parts)
    view = choose_window(row, 30)
    assert view.start in row.boundaries
    assert view.stop in row.boundaries
    assert 22 <= view.stop - view.start <= 30


def test_hole_longer_than_the_window_is_not_cut() -> None:
    row = row_of(["Before it. ", Hole("x", 50), " After it."])
    view = choose_window(row, 20)
    assert (view.start, view.stop) == row.holes[0]


def test_holes_far_apart_get_separate_windows() -> None:
    row = row_of([Hole("x", 3), "A b c d. " * 20, Hole("y", 3)])
    assert choose_window(row, 30).holes == 1
    assert choose_window(row, 200).holes == 2


def test_clip_middle_keeps_both_ends() -> None:
    assert clip_middle("a b\nc d e f", 4) == "a b ... e f"
    assert clip_middle("a b", 4) == "a b"


@pytest.mark.parametrize(
    ("text", "trimmed"),
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
def test_trim_dangling_removes_incomplete_ends(text: str, trimmed: str) -> None:
    assert trim_dangling(text) == trimmed


WORDS = st.sampled_from(["the", "and", "film", "Read", "it.", "You", "is,", '"', "now!", "\n", "."])


@given(st.lists(WORDS, max_size=12).map(" ".join))
def test_trim_dangling_only_removes_and_is_idempotent(text: str) -> None:
    trimmed = trim_dangling(text)
    assert text.startswith(trimmed[:-1])
    assert trim_dangling(trimmed) == trimmed
    assert bool(trimmed) == bool(text)


@given(st.lists(st.lists(st.integers(0, 40), max_size=3), max_size=40))
def test_batches_hold_each_canvas_once_with_those_of_similar_length(holes: list[list[int]]) -> None:
    canvases = [("a", *(Hole("", tokens) for tokens in row)) for row in holes]
    batches = cut_batches(canvases)
    assert sorted(i for batch in batches for i in batch) == list(range(len(canvases)))
    assert all(len(batch) <= MAX_BATCH_CANVASES for batch in batches)
    longest = [[sum(holes[i]) for i in batch] for batch in batches]
    assert all(min(a) >= max(b) for a, b in pairwise(longest))
    assert len(batches) == -(-len(canvases) // MAX_BATCH_CANVASES)
