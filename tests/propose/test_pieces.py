"""How a text was written: pieces with steps survive everything that changes the text afterwards."""

from hypothesis import given, settings
from hypothesis import strategies as st

from remask.dlm.denoiser import split_pieces
from remask.events import Proposed, decode, encode
from remask.ports import Canvas, Context, Fill, Hole, fit_pieces
from remask.prompt import Prompt
from remask.propose.proposer import DiffusionProposer, ProposerConfig

STEPS = st.lists(st.tuples(st.text(min_size=1, max_size=6), st.integers(1, 24)), max_size=8)


@settings(deadline=None)
@given(STEPS, st.text(max_size=40))
def test_pieces_make_up_any_changed_text(pieces: list[tuple[str, int]], text: str) -> None:
    found = fit_pieces(tuple(pieces), text)
    assert "".join(piece for piece, _ in found) == (text if pieces else "")
    assert {step for _, step in found} <= {step for _, step in pieces}


@settings(deadline=None)
@given(STEPS.filter(bool))
def test_an_unchanged_text_keeps_its_pieces(pieces: list[tuple[str, int]]) -> None:
    assert fit_pieces(tuple(pieces), "".join(piece for piece, _ in pieces)) == tuple(pieces)


@given(st.text(max_size=12), st.data())
def test_tokens_that_are_parts_of_a_letter_are_one_piece(text: str, data: st.DataObject) -> None:
    ids = list(text.encode("utf-8", "replace"))
    steps = data.draw(st.lists(st.integers(1, 9), min_size=len(ids), max_size=len(ids)))
    found = split_pieces(lambda part: bytes(part).decode("utf-8", "replace"), ids, steps)
    assert "".join(piece for piece, _ in found) == bytes(ids).decode()
    assert all(1 <= step <= 9 for _, step in found)


class Words:
    """Writes the same words into every hole, one word a step, from the right."""

    def count(self, text: str) -> int:
        return len(text.split())

    def infill(self, context: Context, canvases: list[Canvas], seed: int) -> list[Fill]:
        words = (("answer", 3), (" in", 2), (" French", 1))
        holes = [[part for part in canvas if isinstance(part, Hole)] for canvas in canvases]
        return [Fill(("answer in French",) * len(found), -1.0, (words,) * len(found)) for found in holes]


def test_a_proposal_says_at_which_step_each_word_was_written() -> None:
    start = Prompt("Be kind. Stay calm.")
    config = ProposerConfig(("insert", "span", "sentence"), traces=1, context_tokens=99, max_growth=9.0)
    made = DiffusionProposer(start, Words(), config).propose(start, (), 12, seed=0)
    assert made
    for proposal in made:
        assert len(proposal.pieces) == len(proposal.edits)
        for (_, _, text), pieces in zip(proposal.edits, proposal.pieces, strict=True):
            assert "".join(piece for piece, _ in pieces) == text
            assert [step for _, step in pieces] == [3, 2, 1]
    event = Proposed.from_proposal(0, start, made[0], tokens=9)
    assert decode(encode(event)) == event


def test_an_event_of_an_older_version_has_no_pieces() -> None:
    start = Prompt("Be kind. Stay calm.")
    stored = encode(Proposed(0, start.id, start.id, start.text, 4, "span", (), (), (), None))
    del stored["pieces"]
    assert decode(stored).pieces == ()  # type: ignore[union-attr]
