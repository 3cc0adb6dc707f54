"""Which tokens of a vocabulary may stand where in a hole.

Turns the demands of `canvas.Kind` into rows of forbidden ids, once per tokenizer. Knows the texts
of single tokens; knows nothing of models and prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from remask.dlm.canvas import FINAL, KINDS, PUNCTUATION, Kind

BROKEN = "\ufffd"  # part of a character: a fill would not be valid text


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Forbidden ids for each combination of demands."""

    banned: Tensor  # (KINDS, V) bool
    repeatable: frozenset[int]  # digits, each of which is a token of its own


def vocabulary(texts: Sequence[str], special: Sequence[int]) -> Vocabulary:
    """texts: the text of each token alone, by id. special: ids that no fill may contain."""
    never = torch.tensor([not text or BROKEN in text for text in texts])
    never[list(special)] = True
    fails = {
        Kind.SOLID: torch.tensor([not text.strip() for text in texts]),
        Kind.SPACED: torch.tensor([not text[:1].isspace() for text in texts]),
        Kind.WORDY: torch.tensor([text.rstrip()[-1:] in PUNCTUATION for text in texts]),
        Kind.FINAL: torch.tensor([text.rstrip()[-1:] not in FINAL for text in texts]),
        Kind.CAPITAL: torch.tensor([text.lstrip()[:1].islower() for text in texts]),
    }
    # "" is in every string: a blank token fails WORDY and passes FINAL; SOLID goes with both.
    banned = torch.stack(
        [_any(never, [fails[kind] for kind in Kind if kind & i]) for i in range(KINDS)]
    )
    return Vocabulary(banned, frozenset(i for i, text in enumerate(texts) if text.isdigit()))


def _any(first: Tensor, others: Sequence[Tensor]) -> Tensor:
    return torch.stack([first, *others]).any(0)
