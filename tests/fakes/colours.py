"""A small world for whole runs: a model that knows colours only when its prompt mentions them.

Known answer: a prompt with "colours", which one of WORDS brings, scores 1, any other 0.5.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import remask
from remask.ports import Canvas, Context, Fill, Hole

WORDS = ("Answer kindly.", "Think of colours.", "Say what fits best.", "Ignore the weather.")


class Phrases:
    """A denoiser that writes one of WORDS into every hole."""

    identity = "phrases"

    def count(self, text: str) -> int:
        return len(text.split())

    def infill(self, context: Context, canvases: Sequence[Canvas], seed: int) -> list[Fill]:
        fills = []
        for k, canvas in enumerate(canvases):
            holes = [part for part in canvas if isinstance(part, Hole)]
            texts = tuple(
                WORDS[(seed + k + i) % len(WORDS)] if hole.tokens else "" for i, hole in enumerate(holes)
            )
            fills.append(Fill(texts, -1.0))
        return fills


class Oracle:
    """Knows colours only when its prompt mentions them; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, messages: list[dict[str, str]]) -> str:
        self.calls += 1
        system, user = messages[0]["content"], messages[-1]["content"]
        number = int(user.split()[-1])
        if "colours" in system:
            return "red" if number % 2 else "blue"
        return "red"


def rows(n: int = 240) -> list[dict[str, str]]:
    splits = ["train"] * 30 + ["validation"] * 30 + ["test"] * (n - 60)
    return [{"input": f"item {i}", "label": "red" if i % 2 else "blue", "split": splits[i]} for i in range(n)]


def dataset(n: int = 240) -> remask.Dataset:
    return remask.Dataset(rows(n), split="split")


def search(**more: Any) -> remask.Search:
    """The settings of a search with one masker."""
    return remask.Search(**({"maskers": ["insert"]} | more))


def optimize(run_dir: Path, **more: Any) -> remask.Result:
    """A whole run in this world, with one masker; `more` are other arguments, which win."""
    arguments = {"data": dataset(), "target": Oracle(), "denoiser": Phrases(), "search": search()}
    return remask.optimize("Name it. Be brief.", run_dir=run_dir, **(arguments | more))
