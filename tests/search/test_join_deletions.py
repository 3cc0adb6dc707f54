"""Joined deletions delete what their parts do, and nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from remask.ports import Proposal
from remask.prompt import Edit, Prompt
from remask.search.join_deletions import MAX_DELETED, join_deletions

TEXT = " ".join(f"Sentence number {i} is here." for i in range(12))
PARENT = Prompt(TEXT)


def deletion(start: int, stop: int, text: str = "", violation: str = "") -> Proposal:
    edit = (start, stop, text)
    return Proposal(PARENT.apply([Edit(*edit)]), "delete", ((start, stop, 0),), (edit,), (), 0.0, violation)


def test_halves_and_quarters_of_the_deletions_are_joined_largest_first() -> None:
    starts = [TEXT.index(f"Sentence number {i} ") for i in (0, 2, 4, 6)]
    parts = [deletion(start, TEXT.index("here.", start) + 5) for start in starts]
    joined = join_deletions(PARENT, parts)
    assert [len(p.edits) for p in joined] == [4, 2, 2]
    assert "number 0" not in joined[0].prompt.text and "number 1 " in joined[0].prompt.text
    assert {edit for p in joined[1:] for edit in p.edits} == {edit for p in parts for edit in p.edits}


def test_only_allowed_deletions_are_joined() -> None:
    assert not join_deletions(PARENT, [deletion(0, 5), deletion(6, 9, "new"), deletion(10, 12, "", "no")])


@given(st.lists(st.tuples(st.integers(0, len(TEXT) - 1), st.integers(1, 60)), max_size=9))
def test_a_joined_candidate_is_its_parent_without_the_deleted_text(spans: list[tuple[int, int]]) -> None:
    parts = [deletion(start, min(len(TEXT), start + size)) for start, size in spans]
    for found in join_deletions(PARENT, parts):
        gone = {i for start, stop, _ in found.edits for i in range(start, stop)}
        assert found.prompt.text == "".join(c for i, c in enumerate(TEXT) if i not in gone)
        assert len(gone) == sum(stop - start for start, stop, _ in found.edits) <= MAX_DELETED * len(TEXT)
        assert len(found.edits) > 1 and set(found.edits) <= {edit for p in parts for edit in p.edits}
