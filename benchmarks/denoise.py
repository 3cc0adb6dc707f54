"""How long the embedded denoiser takes, and what keeping the traces' keys and values saves.

    python benchmarks/denoise.py [--json] [--repeats 3]

Draws 8 candidates of a 60-token prompt with 16 masked tokens under 600 tokens of traces: with the
traces read once (a new context, and the same context again), and with a full forward over traces
and prompt for every candidate at every step. All alternate in one run; medians are reported.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass, replace

import torch

from remask.backbone.model import Backbone, Gates, Memory
from remask.backbone.weights import load_base
from remask.dlm.adapter import Adapted, load_adapter
from remask.dlm.embedded import EmbeddedDenoiser
from remask.dlm.families import render
from remask.ports import Canvas, Context, Hole
from remask.trace import Trace

CANDIDATES, PROMPT, MASKED, CONTEXT = 8, 60, 16, 600


@dataclass(frozen=True, slots=True)
class Rereading(Backbone):
    """A backbone that reads the context again with every region, for every candidate."""

    base: Backbone
    context: tuple[int, ...]

    def read_region(
        self,
        ids: torch.Tensor,
        real: torch.Tensor,
        masked: torch.Tensor,
        past: Memory,
        gates: Gates,
    ) -> torch.Tensor:
        context = torch.tensor([self.context] * len(ids))
        _, again = self.base.read(context, torch.ones_like(context, dtype=torch.bool))
        return Backbone.read_region(self, ids, real, masked, again, gates)


def traces(denoiser: EmbeddedDenoiser) -> Context:
    """As many traces as make about 600 tokens."""
    made: list[Trace] = []
    while denoiser.count(render(tuple(made))) < CONTEXT - 20:
        number = len(made)
        query = f"Order {number} has not come yet and nobody answers my letters."
        made.append(Trace(str(number), query, "complaint", "delivery", score=0.0))
    return tuple(made)


def canvas(denoiser: EmbeddedDenoiser) -> Canvas:
    """A prompt of 60 tokens, 16 of them masked in two holes."""
    words = ["You", "read", "one", "message", "and", "name", "the", "team", "it", "needs"]
    text = ""
    while denoiser.count(text) < (PROMPT - MASKED) // 2:
        text = f"{text} {words[denoiser.count(text) % len(words)]}".strip()
    return (text + " ", Hole("x", MASKED // 2), " " + text + " ", Hole("y", MASKED // 2), ".")


def rereading(base: Backbone, adapted: Adapted, context: Context) -> Adapted:
    """The same model without reuse: its fills are the same up to rounding."""
    ids = [*base.turn("user", render(context)), *base.opening("assistant")[:-1]]
    merged = adapted.backbone
    slow = Rereading(merged.model, merged.tokenizer, merged.identity, base, tuple(ids))
    return replace(adapted, backbone=slow)


def seconds(denoiser: EmbeddedDenoiser, context: Context, canvases: list[Canvas]) -> float:
    start = time.perf_counter()
    denoiser.infill(context, canvases, seed=0)
    return time.perf_counter() - start


def measure(repeats: int, steps: int | None) -> dict[str, float | int | str]:
    base = load_base()
    adapted = load_adapter(base)
    first = EmbeddedDenoiser(base, adapted, steps)
    context = traces(first)
    canvases = [canvas(first)] * CANDIDATES
    slow = EmbeddedDenoiser(base, rereading(base, adapted, context), steps)
    seconds(first, (), [("Warm ", Hole("up", 2))])
    times: dict[str, list[float]] = {"new_context": [], "same_context": [], "uncached": []}
    for _ in range(repeats):
        fresh = EmbeddedDenoiser(base, adapted, steps)  # remembers no context
        times["new_context"].append(seconds(fresh, context, canvases))
        times["same_context"].append(seconds(fresh, context, canvases))
        times["uncached"].append(seconds(slow, context, canvases))
    median = {name: round(statistics.median(values), 2) for name, values in times.items()}
    return {
        **median,
        "ratio": round(median["uncached"] / median["new_context"], 2),
        "context_tokens": first.count(render(context)),
        "prompt_tokens": PROMPT,
        "masked": MASKED,
        "candidates": CANDIDATES,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "model": first.identity,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, help="denoising steps (default: the denoiser's own)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    args = parser.parse_args()
    result = measure(args.repeats, args.steps)
    if args.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:16} {value}")


if __name__ == "__main__":
    main()
