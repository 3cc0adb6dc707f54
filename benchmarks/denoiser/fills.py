"""Measure how well adapters fill held-out prompts, and what they write.

    python -m benchmarks.denoiser.fills nats --data CORPUS [--adapter FILE] [--what "span 4" …]
    python -m benchmarks.denoiser.fills nats --data CORPUS --base local:FOLDER --adapter FILE
    python -m benchmarks.denoiser.fills texts --data CORPUS [--adapter FILE] [--show 9]

CORPUS is a folder of prompts with examples (docs/how-to/domain.md). The held-out prompts are those
that `remask adapt --held-out 120` holds out of the same corpus; --leave-out works as there.

"nats" measures nats per hidden token, beside those of the base reading left to right. Lower is
better.

"texts" compares fills of the shipped sampler with samples of the base. One span of each prompt is
hidden and filled once, with its conversations as context. The base reads left to right and sees
only the left side. "best of 8" keeps the draw whose fill and right side the base finds most
probable. The columns: nats per token of the fill and the 24 tokens right of it under the frozen
base (lower is better), chrF against the original text, different word pairs over all pairs, fills
with a word twice in a row (neighbours included), and word pairs that also stand in the
conversations.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import sacrebleu
import torch

from benchmarks.record import make_parser
from remask.dlm.adapter import SHIPPED_ADAPTER, load_adapter
from remask.dlm.build import BuiltinDenoiser, find_base
from remask.dlm.canvas import apply_fills
from remask.dlm.layout import Layout
from remask.dlm.training.batches import select_traces
from remask.dlm.training.corpus import TrainingExample, hold_out, read_examples
from remask.dlm.training.held_out import CONTEXT_TOKENS, MASK_PATTERNS, measure
from remask.ids import rng_for, seed_for
from remask.models.backbone.builtin_weights import load_base
from remask.models.backbone.transformer import Backbone
from remask.ports import Context, Hole

RIGHT = 24  # tokens after the fill whose nats count
DRAWS = 8
TEMPERATURE = 0.7  # of the base, which repeats itself when it takes only its most probable tokens


@dataclass(frozen=True, slots=True)
class Gap:
    """A prompt with a span cut out, and its conversations."""

    left: str
    text: str
    right: str
    tokens: int
    context: Context
    name: str  # the key of its random draws


Fill = Callable[[Gap], str]


def add_held_out_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `load_held_out` reads."""
    option = parser.add_argument
    option("--data", type=Path, required=True, metavar="CORPUS", help="A folder of prompts.")
    option("--leave-out", default="", metavar="REGEX", help="Leave out prompts that match.")
    option("--held-out", type=int, default=120, help="How many prompts are held out of training.")
    option("--prompts", type=int, default=60, help="How many of the held-out prompts are measured.")
    option("--threads", type=int, default=1, help="Threads of the processor.")


def load_held_out(args: argparse.Namespace) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Prompts to train on, and the first prompts of those that are held out of training."""
    cases, held = hold_out(read_examples([args.data], args.leave_out), args.held_out)
    return cases, held[: args.prompts]


# -- nats -----------------------------------------------------------------------------------------


def measure_nats(args: argparse.Namespace) -> dict[str, Any]:
    base = find_base(args.base, args.revision, device="cpu")
    adapted = load_adapter(base.backbone, args.adapter, base.family)
    found, held = {}, load_held_out(args)[1]
    for what in args.what:
        nats = measure(base.backbone, adapted, held, what)
        if nats is None:
            continue
        found[what] = asdict(nats)
        if not args.json:
            print(
                f"{what:10} denoiser {nats.left_to_right:.3f}  in one step {nats.at_once:.3f}  "
                f"base {nats.base:.3f}  no traces {nats.without_traces:.3f}  "
                f"first {nats.first_token:.3f}  n {nats.prompts}",
                flush=True,
            )
    return found


# -- texts ----------------------------------------------------------------------------------------


def make_gaps(held: Sequence[TrainingExample], tokens: int) -> list[Gap]:
    base = load_base()
    layout = Layout(base, load_adapter(base).family)
    found = []
    for case in held:
        rng = rng_for(0, "fills", case.id)
        ids, ranges = base.encode_spans(case.prompt)
        if len(ids) < tokens + 4:
            continue
        first = int(rng.integers(1, len(ids) - tokens - 1))
        start, stop = ranges[first][0], ranges[first + tokens - 1][1]
        prompt, traces = case.prompt, select_traces(case, CONTEXT_TOKENS, layout, rng)
        found.append(Gap(prompt[:start], prompt[start:stop], prompt[stop:], tokens, traces, case.id))
    return found


def join_fill(gap: Gap, fill: str) -> tuple[str, tuple[int, int]]:
    """The prompt with the fill, and the characters of the fill with its right side."""
    text = "".join(apply_fills((gap.left, Hole(gap.text, gap.tokens), gap.right), [fill]))
    return text, (len(gap.left.rstrip()), len(text))


def score_fill(scorer: BuiltinDenoiser, base: Backbone, gap: Gap, fill: str) -> float:
    """Nats per token of the fill and the tokens right of it, under the base left to right."""
    text, (start, _) = join_fill(gap, fill)
    ids, ranges = base.encode_spans(text)
    inside = [i for i, (_, stop) in enumerate(ranges) if stop > start]
    last = min(len(ids), inside[0] + len(base.encode(f" {fill}")) + RIGHT)
    found = scorer.score(gap.context, text, [(start, ranges[last - 1][1])])
    return -found[0] / (last - inside[0])


def draw_fills(base: Backbone, layout: Layout, gap: Gap, rows: int) -> list[str]:
    """Continuations of the left side by the base, `gap.tokens` tokens each."""
    context, _ = layout.encode_context(gap.context, "")
    ids = torch.tensor([[*context, *base.encode(gap.left.rstrip())]])
    hidden, memory = base.read(ids, torch.ones_like(ids, dtype=torch.bool))
    memory = memory.select(torch.zeros(rows, dtype=torch.long))
    last = hidden[:, -1].expand(rows, -1)
    generator = torch.Generator().manual_seed(seed_for(0, "draw", gap.name))
    written = []
    for _ in range(gap.tokens):
        logits = base.logits(last).float()
        logits[:, list(layout.family.special)] = float("-inf")
        chances = (logits / TEMPERATURE).softmax(-1)
        new = torch.multinomial(chances, 1, generator=generator)
        written.append(new)
        hidden, memory = base.read(new, torch.ones_like(new, dtype=torch.bool), memory)
        last = hidden[:, -1]
    return [base.decode(row) for row in torch.cat(written, 1).tolist()]


def make_fillers(adapter: Path) -> tuple[dict[str, Fill], Callable[[Gap, str], float]]:
    """The kinds of fills by name, and a function that scores a fill in nats."""
    base = load_base()
    adapted = load_adapter(base, adapter)
    layout, denoiser = Layout(base, adapted.family), BuiltinDenoiser(base, adapted)

    def judge(gap: Gap, fill: str) -> float:
        return score_fill(denoiser, base, gap, fill)

    def denoise(rows: int, gap: Gap) -> str:
        canvas = (gap.left, Hole(gap.text, gap.tokens), gap.right)
        fills = denoiser.infill(gap.context, [canvas] * rows, seed_for(0, "fill", gap.name))
        return pick_best(gap, [fill.texts[0] for fill in fills])

    def pick_best(gap: Gap, texts: Sequence[str]) -> str:
        return texts[0] if len(texts) == 1 else min(texts, key=lambda text: judge(gap, text))

    ways: dict[str, Fill] = {
        "the text itself": lambda gap: gap.text,
        "denoiser": lambda gap: denoise(1, gap),
        f"denoiser, best of {DRAWS}": lambda gap: denoise(DRAWS, gap),
        "base": lambda gap: draw_fills(base, layout, gap, 1)[0],
        f"base, best of {DRAWS}": lambda gap: pick_best(gap, draw_fills(base, layout, gap, DRAWS)),
    }
    return ways, judge


def pair_words(text: str) -> list[tuple[str, str]]:
    return list(pairwise(text.lower().split()))


def has_doubled_word(gap: Gap, fill: str) -> bool:
    """Whether a word stands twice in a row, in the fill or at its edges."""
    words = [*gap.left.split()[-1:], *fill.split(), *gap.right.split()[:1]]
    return any(a.lower() == b.lower() for a, b in pairwise(words))


def collect_pairs(context: Context) -> set[tuple[str, str]]:
    """All word pairs of the conversations."""
    texts = [f"{trace.query} {trace.response} {trace.desired or ''}" for trace in context]
    return {pair for text in texts for pair in pair_words(text)}


def describe_fills(cases: Sequence[Gap], fills: Sequence[str], scores: Iterable[float]) -> dict[str, float]:
    chrf = sacrebleu.CHRF()
    all_pairs = [pair for fill in fills for pair in pair_words(fill)]
    copied = [pair in collect_pairs(g.context) for g, fill in zip(cases, fills, strict=True)
              for pair in pair_words(fill)]  # fmt: skip
    return {
        "nats": mean(scores),
        "chrf": mean(chrf.sentence_score(fill, [g.text]).score for g, fill in zip(cases, fills, strict=True)),
        "distinct_2": len(set(all_pairs)) / max(1, len(all_pairs)),
        "doubled": mean(has_doubled_word(g, fill) for g, fill in zip(cases, fills, strict=True)),
        "copied": mean(copied) if copied else 0.0,
        "words": mean(len(fill.split()) for fill in fills),
    }


def measure_texts(args: argparse.Namespace) -> dict[str, Any]:
    cases = make_gaps(load_held_out(args)[1], args.tokens)
    ways, judge = make_fillers(args.adapter)
    found = {}
    for name, fill in ways.items():
        fills = [fill(gap) for gap in cases]
        scores = [judge(gap, text) for gap, text in zip(cases, fills, strict=True)]
        found[name] = {**describe_fills(cases, fills, scores), "n": len(cases)}
        if not args.json:
            row = "  ".join(f"{key} {value:.3f}" for key, value in found[name].items())
            print(f"{name:22} {row}", flush=True)
            for gap, text in list(zip(cases, fills, strict=True))[: args.show]:
                print(f"    …{gap.left[-40:]!r} [{text}] {gap.right[:40]!r}")
    return found


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__file__, __doc__)
    option = parser.add_argument
    option("part", choices=("nats", "texts"), help="The part to run.")
    add_held_out_options(parser)
    option("--adapter", type=Path, default=SHIPPED_ADAPTER, help="Default: the shipped adapter.")
    option("--base", default="builtin", help="The base for nats, as for remask adapt.")
    option("--revision", help="The revision of the base for nats, as for remask adapt.")
    option(
        "--what", choices=list(MASK_PATTERNS), nargs="+", default=list(MASK_PATTERNS),
        help="What is hidden for nats. Default: everything in turn.",
    )  # fmt: skip
    option("--tokens", type=int, default=8, help="The length of the span for texts.")
    option("--show", type=int, default=0, help="Print this many texts of each kind.")
    option("--json", action="store_true", help="Print one line of JSON instead of a table.")
    args = parser.parse_args(words)
    torch.set_num_threads(args.threads)
    found = measure_nats(args) if args.part == "nats" else measure_texts(args)
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
