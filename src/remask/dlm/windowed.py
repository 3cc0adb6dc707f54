"""Reading the embedded model's regions with most of their tokens kept.

Between two whole readings only the holes are read anew, behind the context and among the other
tokens of the region as they were at the last whole reading (the dual cache of Fast-dLLM, arXiv
2505.22618, section 3.2). An approximation: what stands round a hole does not see how it fills. The
error is measured at each whole reading but the first. Knows token ids, a backbone and a reading;
knows nothing of text, traces and sampling.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from remask.backbone.attention import Memory
from remask.dlm.drift import Drift
from remask.dlm.families import Family
from remask.dlm.reading import Ids, RegionReading, Session, distinct, predict, repeat_rows
from remask.dlm.sampler import Canvases
from remask.errors import ConfigError


class WindowReading:
    """`reading` with a whole reading of regions only at every `refresh`-th step."""

    def __init__(self, reading: RegionReading, refresh: int) -> None:
        """Raises ConfigError."""
        if refresh < 1:
            raise ConfigError(f"refresh is {refresh}; it must be at least 1")
        self.exact = reading
        self.refresh = refresh
        self.drift = Drift()

    @property
    def identity(self) -> str:
        return f"{self.exact.identity}/window-{self.refresh}"

    @property
    def family(self) -> Family:
        return self.exact.family

    def front(self, length: int) -> int:
        return self.exact.front(length)

    def begin(self, context: Ids, shared: int, real: Tensor) -> Session:
        past = self.exact.prefixes.memory(context, shared)
        assert past is not None, "a chat turn stands before every prompt"
        return _WindowSession(self, past, real)

    def score(self, context: Ids, shared: int, ids: Ids, wanted: Sequence[int]) -> list[float]:
        return self.exact.score(context, shared, ids, wanted)


class _WindowSession:
    """Regions behind a context that does not change."""

    def __init__(self, reading: WindowReading, past: Memory, real: Tensor) -> None:
        self._reading = reading
        self._past = past
        self._real = real
        self._step = 0
        self._at: Tensor | None = None  # (K, n) long: holes, and what predicts them
        self._kept: Memory | None = None  # of the regions _rows
        self._rows: list[int] = []

    def logits(self, ids: Tensor) -> Tensor:
        step, self._step = self._step, self._step + 1
        masked = ids == self._reading.family.mask
        if self._at is None:
            self._at = places(masked, self._reading.family.shifted)
        rows: list[int] = masked.any(1).nonzero()[:, 0].tolist()
        quick = self._quick(ids, rows) if self._kept is not None else None
        if quick is not None and step % self._reading.refresh:
            return quick
        exact = self._whole(ids, rows)
        if quick is not None:
            self._reading.drift = self._reading.drift.measured(quick, exact)
        return exact

    def nats(self, ids: Tensor, canvases: Canvases, logp: Tensor) -> Tensor:
        return logp.sum(1)

    def _quick(self, ids: Tensor, rows: list[int]) -> Tensor:
        assert self._kept is not None and self._at is not None
        if rows != self._rows:
            index = torch.tensor([self._rows.index(row) for row in rows])
            self._kept = self._kept.select(index.to(self._kept.real.device))
            self._rows = rows
        reading, at = self._reading.exact, self._at[rows]
        ids, real = ids[rows], self._real[rows]
        masked = ids == reading.family.mask
        hidden = reading.adapted.patch_region(
            ids, real, masked, self._past, reading.gates, self._kept, at
        )
        spread = hidden.new_zeros(*ids.shape, hidden.shape[-1])
        index = at[..., None].expand_as(hidden).to(hidden.device)
        return predict(reading.adapted, reading.family, spread.scatter(1, index, hidden), masked)

    def _whole(self, ids: Tensor, rows: list[int]) -> Tensor:
        first, inverse = distinct(ids[rows], self._real[rows])
        kinds = [rows[i] for i in first]
        reading, regions = self._reading.exact, ids[kinds]
        masked = regions == reading.family.mask
        hidden, kept = reading.adapted.keep_region(
            regions, self._real[kinds], masked, self._past, reading.gates
        )
        self._kept = kept.select(torch.tensor(inverse, device=kept.real.device))
        self._rows = rows
        return repeat_rows(
            predict(reading.adapted, reading.family, hidden, masked), masked, inverse
        )


def places(masked: Tensor, shifted: bool) -> Tensor:
    """(K, n) long: the columns of a row's masks, and where logits are shifted those before them;
    shorter rows repeat their first one. masked: (K, L) bool with a mask in each row."""
    wanted = masked.clone()
    if shifted:
        wanted[:, :-1] |= masked[:, 1:]
    columns = [row.nonzero()[:, 0].tolist() for row in wanted]
    most = max(map(len, columns))
    return torch.tensor([row + row[:1] * (most - len(row)) for row in columns])
