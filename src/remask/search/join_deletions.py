"""Join the deletions of a round into candidates that delete more, for a search for shorter prompts.

One sentence of a long prompt is one hundredth of it. Halves, quarters and so on of the deletions
that a proposer drew are tried at once, as in a binary search for the ones that do no harm.
"""

from collections.abc import Sequence
from itertools import pairwise

from remask.ports import Proposal
from remask.prompt import Edit, Prompt

MAX_DELETED = 1 / 3  # of the parent's text, in one candidate


def join_deletions(parent: Prompt, proposals: Sequence[Proposal]) -> list[Proposal]:
    """Return candidates that join two or more of the deletions, the largest first.

    A proposal takes part where all of its edits delete text and the guard allows it. Deletions that
    overlap an earlier one of their group are left out of it.
    """
    pool = [p for p in proposals if not p.violation and all(not text for _, _, text in p.edits)]
    found: dict[str, Proposal] = {}
    size = len(pool)
    while size > 1:
        for start in range(0, len(pool), size):
            joined = _join(parent, pool[start : start + size])
            if joined is not None:
                found.setdefault(joined.prompt.id, joined)
        size = -(-size // 2)
    return list(found.values())


def _join(parent: Prompt, group: Sequence[Proposal]) -> Proposal | None:
    """Return the proposal with all deletions of a group that fit together; None for fewer than two."""
    edits: list[tuple[int, int, str]] = []
    taken: list[Proposal] = []
    for proposal in group:
        both = sorted([*edits, *proposal.edits])
        apart = all(a[1] <= b[0] for a, b in pairwise(both))
        if apart and sum(stop - start for start, stop, _ in both) <= MAX_DELETED * len(parent.text):
            edits, taken = both, [*taken, proposal]
    if len(taken) < 2:
        return None
    return Proposal(
        prompt=parent.apply(Edit(*edit) for edit in edits),
        masker=taken[0].masker,
        masks=tuple(sorted(mask for proposal in taken for mask in proposal.masks)),
        edits=tuple(edits),
        traces=taken[0].traces,
        logp=0.0,
        demo_rows=tuple(dict.fromkeys(row for proposal in taken for row in proposal.demo_rows)),
    )
