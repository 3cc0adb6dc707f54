"""What denoisers behind an API share: seeds of equal chats, cleaning, lengths, useless answers."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remask.dlm.asking import (
    SEEDS,
    Written,
    ask,
    checked,
    estimate,
    most_tokens,
    open_holes,
    settled,
)
from remask.errors import TargetUnreliable
from remask.ports import Fill, Hole, Reply, Target
from remask.trace import Chat, Message


class Recording(Target):
    """Answers with its question and the repeat."""

    identity = "recording"

    def __init__(self) -> None:
        self.asked: list[tuple[Chat, int]] = []

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        self.asked += [(chat, repeat) for chat in chats]
        return [Reply(f"{chat[0].content} {repeat}") for chat in chats]


@given(st.lists(st.sampled_from("abc"), max_size=12), st.integers(0, 2**61))
def test_equal_chats_get_other_seeds_and_all_come_back_in_order(
    questions: list[str], seed: int
) -> None:
    chats = [(Message("user", q),) for q in questions]
    target = Recording()
    replies = ask(target, chats, seed)
    assert [reply.text[0] for reply in replies] == questions
    assert len(set(target.asked)) == len(chats)
    assert all(0 <= repeat < SEEDS for _, repeat in target.asked)
    assert ask(Recording(), chats, seed) == replies


def test_lengths_are_estimated_from_bytes() -> None:
    assert [estimate(text) for text in ("", "a", "four", "fives", "颜色颜色")] == [0, 1, 1, 2, 3]


def test_an_answer_is_cleaned_and_never_a_deletion() -> None:
    hole = Hole("old", 4)
    text = "<|im_start|> Think\u200b of\n\n colours.[/INST]\x07"
    assert checked(text, hole) == ("Think of colours.", "")
    for empty in ("", "  \n", "<|im_end|>", "…", "\u200b"):
        assert checked(empty, hole) == ("", "is empty")
    longest = "abc " * most_tokens(hole)
    assert checked(longest, hole)[1] == ""
    assert "at most 16 are allowed" in checked(longest + "abc abc", hole)[1]


CANVAS = ("A ", Hole("b", 2), " c ", Hole("d", 0), " e ", Hole("f", 3))


def test_a_canvas_without_an_answer_keeps_its_old_texts() -> None:
    assert [hole.old for hole in open_holes(CANVAS)] == ["b", "f"]
    good, bad = Written(("x", "y")), Written(("x",), "is empty")
    deletion = ("A", Hole(" b", 0))
    assert settled([CANVAS, CANVAS, deletion], {0: good, 1: bad}) == [
        Fill(("x", "", "y"), 0.0),
        Fill(("b", "d", "f"), 0.0),
        Fill(("",), 0.0),
    ]
    assert settled([deletion], {}) == [Fill(("",), 0.0)]


def test_where_no_answer_is_usable_that_is_an_error() -> None:
    with pytest.raises(TargetUnreliable, match=r"none of the denoiser's 2 answers .*: is empty"):
        settled([CANVAS, CANVAS], {0: Written(problem="is empty"), 1: Written(problem="is long")})
