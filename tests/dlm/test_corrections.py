"""Written tokens are corrected when their block is finished (LLaDA2.1)."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from remask.dlm.build import load_denoiser
from remask.dlm.corrections import MAX_PASSES, correct_blocks
from remask.dlm.sampler import CanvasBatch, CommitRule, denoise
from remask.ports import Hole

MASK, SIZE = 0, 20
RULE = CommitRule(temperature=0, position_temperature=0, left_bias=0, block=4)


def batch(*rows: list[int], banned: int | None = None) -> CanvasBatch:
    ids = torch.tensor(rows)
    forbidden = torch.zeros((1, SIZE), dtype=torch.bool)
    forbidden[0, MASK] = True
    if banned is not None:
        forbidden[0, banned] = True
    return CanvasBatch(ids, torch.zeros_like(ids), forbidden, MASK)


def favour(probabilities: dict[int, float]) -> Tensor:
    """Logits of one position that give these tokens these probabilities."""
    rest = (1 - sum(probabilities.values())) / (SIZE - len(probabilities))
    return torch.tensor([probabilities.get(token, rest) for token in range(SIZE)]).log()


def corrected(
    canvases: CanvasBatch, written: list[int], wish: Callable[[list[int], int], dict[int, float]]
) -> tuple[list[int], int]:
    """The row after correction by a model that wants `wish(row, column)`, and how often it was read."""
    reads = 0

    def read_at(ids: Tensor, positions: Tensor) -> Tensor:
        nonlocal reads
        reads += 1
        return torch.stack(
            [favour(wish(ids[row].tolist(), column)) for row, column in positions.nonzero().tolist()]
        )

    ids = torch.tensor([written])
    positions = canvases.ids == MASK
    out, _ = correct_blocks(canvases, read_at, 0.5)(
        ids, torch.zeros(ids.shape, dtype=torch.float64), positions
    )
    assert torch.equal(ids, torch.tensor([written]))  # the input is not changed
    return out[0].tolist(), reads


def test_a_written_token_is_replaced_by_a_probable_other_one() -> None:
    row, reads = corrected(batch([5, MASK, MASK, 6]), [5, 7, 8, 6], lambda row, column: {9 + column: 0.8})
    assert row == [5, 10, 11, 6]
    assert reads == 2  # nothing changes in the second


def test_what_is_not_probable_enough_or_banned_is_not_written() -> None:
    canvases = batch([5, MASK, MASK, 6], banned=11)
    row, reads = corrected(
        canvases, [5, 7, 8, 6], lambda row, column: {9 + column: 0.45 if column == 1 else 0.9}
    )
    assert row == [5, 7, 8, 6]
    assert reads == 1


def test_no_repeat_of_the_neighbourhood_is_written() -> None:
    row, _ = corrected(batch([5, MASK, MASK, 6]), [5, 7, 8, 6], lambda row, column: {5: 0.9})
    assert row == [5, 7, 5, 6]


def test_a_model_that_never_agrees_with_itself_is_stopped() -> None:
    row, reads = corrected(
        batch([5, MASK, 6]), [5, 7, 6], lambda row, column: {8 if row[column] == 7 else 7: 0.9}
    )
    assert reads == MAX_PASSES
    assert row == [5, 7, 6]


def test_each_block_is_corrected_when_it_is_finished() -> None:
    canvases = batch([5, MASK, MASK, 6, MASK, 4, MASK, 3], [5, 5, 5, 5, MASK, 6, 6, 6])
    seen: list[list[list[int]]] = []

    def correct(ids: Tensor, logp: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        seen.append([row.nonzero()[:, 0].tolist() for row in positions])
        return ids, logp

    def logits(ids: Tensor) -> Tensor:
        return torch.stack([favour({10 + i % 9: 0.6}) for i in range(int((ids == MASK).sum()))])

    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    *_, done = denoise(canvases, logits, [None, None], RULE, generators, correct)
    assert not (done.ids == MASK).any()
    assert [[1, 2], []] in seen and [[4, 6], []] in seen
    assert sum(row[1] == [4] for row in seen) == 1


def test_family_of_a_checkpoint_decides(checkpoint: Callable[[str], Path]) -> None:
    plain, editing = (load_denoiser(str(checkpoint(name)), device="cpu") for name in ("llada2", "llada2.1"))
    assert (plain.rule.threshold, editing.rule.threshold) == (0.95, 0.7)
    given = load_denoiser(str(checkpoint("llada2.1")), device="cpu", rule=CommitRule(threshold=0.8))
    assert given.rule.threshold == 0.8
    assert "/edit-0.5" in editing.identity and "/edit" not in plain.identity


def test_corrections_change_only_holes(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = load_denoiser(str(checkpoint("llada2.1")), device="cpu", dtype=torch.float32)
    canvas = ("Answer in ", Hole("two", 3), " word: positive or ", Hole("bad", 4), " now. End")
    before = denoiser.infill((), [canvas], seed=1)
    monkeypatch.setattr("remask.dlm.corrections.math.log", lambda threshold: -100.0)  # everything is probable
    after = denoiser.infill((), [canvas], seed=1)
    assert before != after
    assert all(text.strip() for text in after[0].texts)
