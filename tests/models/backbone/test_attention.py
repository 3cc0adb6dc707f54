"""Attention to a past that all rows share."""

import pytest
import torch
from torch import Tensor

from remask.models.backbone.attention import Gates, KVCache, Scores, find_shared_prefix
from remask.models.backbone.transformer import Backbone

CLOSE = {"atol": 2e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def past(base: Backbone) -> KVCache:
    ids = torch.tensor([base.encode("You read a review of a film and name its sentiment. ")])
    return base.read(ids, torch.ones_like(ids, dtype=torch.bool))[1]


def gates(base: Backbone) -> Gates:
    generator = torch.Generator().manual_seed(0)
    shape = (base.model.config.num_hidden_layers, base.model.config.num_attention_heads)
    right, masked = (torch.randn(shape, generator=generator) for _ in range(2))
    return Gates(right, masked, torch.zeros(base.model.config.hidden_size))


def regions(base: Backbone) -> tuple[Tensor, Tensor, Tensor]:
    """Two rows, the second one shorter; three masks in each."""
    ids = torch.tensor([base.encode("Answer with one or two words, please.")[:8]] * 2)
    attention_mask, masked = (torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool))
    attention_mask[1, 6:] = False
    masked[0, [2, 3, 6]] = masked[1, [0, 3, 4]] = True
    return ids, attention_mask, masked


def test_shared_prefix_attention_equals_fused_attention() -> None:
    generator = torch.Generator().manual_seed(1)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    query, key, value = numbers(3, 6, 5, 4), numbers(3, 2, 5, 4), numbers(3, 2, 5, 4)
    past_key, past_value, mask = numbers(1, 2, 7, 4), numbers(1, 2, 7, 4), numbers(3, 6, 5, 5)
    shared = KVCache((past_key,), (past_value,), torch.ones(1, 7, dtype=torch.bool))
    found = Scores(mask, shared).attend(query, key, value, 0.5, 0)
    keys = torch.cat([past_key.expand(3, -1, -1, -1), key], 2)
    values = torch.cat([past_value.expand(3, -1, -1, -1), value], 2)
    scores = torch.cat([torch.zeros(3, 6, 5, 7), mask], 3)
    expected = Scores(scores, None).attend(query, keys, values, 0.5, 0)
    torch.testing.assert_close(found, expected)


def test_shared_prefix_equals_one_prefix_per_row(base: Backbone, past: KVCache) -> None:
    ids, attention_mask, masked = regions(base)
    own = past.select(torch.tensor([0, 0]))
    assert find_shared_prefix(past) is past
    assert find_shared_prefix(own) is None
    found = base.read_region(ids, attention_mask, masked, past, gates(base))
    expected = base.read_region(ids, attention_mask, masked, own, gates(base))
    torch.testing.assert_close(found[attention_mask], expected[attention_mask], **CLOSE)


def test_padded_past_is_not_shared(past: KVCache) -> None:
    holed = KVCache(past.keys, past.values, past.attention_mask.clone())
    holed.attention_mask[0, 0] = False
    assert find_shared_prefix(holed) is None
    assert find_shared_prefix(None) is None
