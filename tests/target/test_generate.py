"""An answer in parts: whole characters, stop texts cut exactly, tokens beside their text."""

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from remask.models.generate import Decoding, answer, drawing
from remask.trace import Chat, Message

CHAT: Chat = (Message("user", ""),)
TEXT = st.text("ab é👋\n", max_size=20)


class Bytes:
    """Writes a text it knows; a token is a byte."""

    identity = "bytes"

    def __init__(self, data: bytes) -> None:
        self.data = data

    def room(self, chat: Chat) -> tuple[int, int]:
        return 0, len(self.data)

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")

    def write(self, chat: Chat, pick: Callable[[Tensor], int]) -> Iterator[tuple[int, Tensor]]:
        for byte in self.data:
            logits = torch.zeros(256)
            logits[byte] = 9.0
            yield pick(logits), logits


@settings(deadline=None)
@given(TEXT, st.lists(st.text("ab é", min_size=1, max_size=3), max_size=3), st.integers(1, 30))
def test_parts_make_up_the_text_before_the_first_stop(
    text: str, stops: list[str], limit: int
) -> None:
    data = text.encode()
    parts = list(answer(Bytes(data), CHAT, Decoding(limit, stop=tuple(stops))))
    expected = data[:limit].decode("utf-8", "replace")
    finish = "length" if len(data) >= limit else "stop"
    for size in range(1, min(len(data), limit) + 1):
        seen = data[:size].decode("utf-8", "ignore")  # whole characters so far
        if cuts := [seen.index(stop) for stop in stops if stop in seen]:
            expected, finish = seen[: min(cuts)], "stop"
            break
    assert "".join(part.text for part in parts) == expected
    assert [part.finish for part in parts] == [*[""] * (len(parts) - 1), finish]


@settings(deadline=None)
@given(TEXT)
def test_text_and_tokens_go_out_together(text: str) -> None:
    for part in answer(Bytes(text.encode()), CHAT, Decoding(100)):
        assert len(part.tokens) == len(part.text.encode())
        assert "\ufffd" not in part.text


def test_a_broken_character_is_shown_as_such() -> None:
    parts = list(answer(Bytes(b"a\xf0\x9f"), CHAT, Decoding(100)))
    assert "".join(part.text for part in parts) == "a\ufffd"
    many = list(answer(Bytes(b"\xf0\x80" * 8 + b"b"), CHAT, Decoding(100)))
    assert "".join(part.text for part in many).endswith("b")


def test_tokens_behind_the_cut_are_not_part_of_the_answer() -> None:
    parts = list(answer(Bytes(b"abcdef"), CHAT, Decoding(100, stop=("cde",), top=2)))
    tokens = [token for part in parts for token in part.tokens]
    assert [token.text for token in tokens] == ["a", "b"]
    assert [token.top[0] for token in tokens] == [(t.text, t.logp) for t in tokens]
    assert parts[-1].finish == "stop"


def test_temperature_zero_takes_the_most_probable_and_one_draws_by_probability() -> None:
    logits = torch.tensor([0.0, 2.0, 1.0])
    assert drawing(Decoding(1))(logits) == 1
    draw = drawing(Decoding(1, temperature=1.0, seed=5))
    drawn = torch.tensor([draw(logits) for _ in range(3000)])
    found = torch.bincount(drawn, minlength=3) / 3000
    assert torch.allclose(found, logits.softmax(0), atol=0.05)  # over five standard deviations
    again = drawing(Decoding(1, temperature=1.0, seed=5))
    assert [again(logits) for _ in range(20)] == drawn[:20].tolist()


@pytest.mark.parametrize(("top_p", "allowed"), [(0.5, {1}), (0.8, {1, 2}), (1.0, {0, 1, 2})])
def test_the_nucleus_is_the_fewest_tokens_that_hold_it(top_p: float, allowed: set[int]) -> None:
    logits = torch.tensor([0.1, 0.6, 0.3]).log()
    draw = drawing(Decoding(1, temperature=1.0, top_p=top_p))
    assert {draw(logits) for _ in range(200)} == allowed
