"""How well adapters fill held-out prompts, and what is written into them.

    python benchmarks/denoiser/fills.py nats --data CORPUS [--adapter FILE] [--what "span 4" …]
    python benchmarks/denoiser/fills.py nats --data CORPUS --base local:FOLDER --adapter FILE
    python benchmarks/denoiser/fills.py texts --data CORPUS [--adapter FILE] [--tokens 8] [--show 9]

CORPUS: a folder of prompts with examples (docs/adapt.md). Held out are the same prompts that
`remask adapt --held-out 120` holds out of the same corpus; --leave-out as there.

nats: per hidden token, against the base left to right. Lower is better.

texts: fills of the shipped sampler beside samples of the base. A span of each prompt is hidden and
filled once, with its conversations as context. `base` draws from the frozen base left to right,
which sees the left side only; `best of 8` keeps of eight draws the one whose fill and right side
the base finds most probable. Columns: nats per token of the fill and the 24 tokens right of it
under the frozen base (lower is better), chrF against the text that stood there, different word
pairs over all pairs, fills with a word twice in a row (neighbours included), and word pairs that
also stand in the conversations.
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

RIGHT = 24  # tokens behind the fill whose nats count
DRAWS = 8
TEMPERATURE = 0.7  # of the base: its most probable tokens alone repeat themselves


@dataclass(frozen=True, slots=True)
class Gap:
    """A prompt with a span cut out, and its conversations."""

    left: str
    text: str
    right: str
    tokens: int
    context: Context
    name: str  # names the randomness


Fill = Callable[[Gap], str]


def held_out_options(parser: argparse.ArgumentParser) -> None:
    """What `held_out` reads."""
    parser.add_argument("--data", type=Path, required=True, metavar="CORPUS")
    parser.add_argument("--leave-out", default="", metavar="REGEX")
    parser.add_argument("--held-out", type=int, default=120)
    parser.add_argument("--prompts", type=int, default=60, help="of those, the first so many")
    parser.add_argument("--threads", type=int, default=1)


def held_out(args: argparse.Namespace) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Prompts to train on, and the first of those held out of training."""
    cases, held = hold_out(read_examples([args.data], args.leave_out), args.held_out)
    return cases, held[: args.prompts]


# -- nats -----------------------------------------------------------------------------------------


def nats_of(args: argparse.Namespace) -> dict[str, Any]:
    base = find_base(args.base, args.revision, device="cpu")
    adapted = load_adapter(base.backbone, args.adapter, base.family)
    found, held = {}, held_out(args)[1]
    for what in args.what:
        nats = measure(base.backbone, adapted, held, what)
        if nats is None:
            continue
        found[what] = asdict(nats)
        if not args.json:
            print(
                f"{what:10} dlm {nats.left_to_right:.3f}  in one step {nats.at_once:.3f}  base "
                f"{nats.base:.3f}  no traces {nats.without_traces:.3f}  "
                f"first {nats.first_token:.3f}  n {nats.prompts}",
                flush=True,
            )
    return found


# -- texts ----------------------------------------------------------------------------------------


def gaps(held: Sequence[TrainingExample], tokens: int) -> list[Gap]:
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
        found.append(
            Gap(prompt[:start], prompt[start:stop], prompt[stop:], tokens, traces, case.id)
        )
    return found


def whole(gap: Gap, fill: str) -> tuple[str, tuple[int, int]]:
    """The prompt with the fill, and the characters of the fill with its right side."""
    text = "".join(apply_fills((gap.left, Hole(gap.text, gap.tokens), gap.right), [fill]))
    return text, (len(gap.left.rstrip()), len(text))


def nats(scorer: BuiltinDenoiser, base: Backbone, gap: Gap, fill: str) -> float:
    """Of the fill and the tokens right of it, per token, by the base left to right."""
    text, (start, _) = whole(gap, fill)
    ids, ranges = base.encode_spans(text)
    inside = [i for i, (_, stop) in enumerate(ranges) if stop > start]
    last = min(len(ids), inside[0] + len(base.encode(f" {fill}")) + RIGHT)
    found = scorer.score(gap.context, text, [(start, ranges[last - 1][1])])
    return -found[0] / (last - inside[0])


def draw(base: Backbone, layout: Layout, gap: Gap, rows: int) -> list[str]:
    """Continuations of the left side by the base, `gap.tokens` tokens each."""
    context, _ = layout.context(gap.context, "")
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


def fillers(adapter: Path) -> tuple[dict[str, Fill], Callable[[Gap, str], float]]:
    """The ways to fill, and the nats of a fill."""
    base = load_base()
    adapted = load_adapter(base, adapter)
    layout, dlm = Layout(base, adapted.family), BuiltinDenoiser(base, adapted)

    def judge(gap: Gap, fill: str) -> float:
        return nats(dlm, base, gap, fill)

    def by(rows: int, gap: Gap) -> str:
        canvas = (gap.left, Hole(gap.text, gap.tokens), gap.right)
        fills = dlm.infill(gap.context, [canvas] * rows, seed_for(0, "fill", gap.name))
        return best(gap, [fill.texts[0] for fill in fills])

    def best(gap: Gap, texts: Sequence[str]) -> str:
        return texts[0] if len(texts) == 1 else min(texts, key=lambda text: judge(gap, text))

    ways: dict[str, Fill] = {
        "the text itself": lambda gap: gap.text,
        "denoiser": lambda gap: by(1, gap),
        f"dlm, best of {DRAWS}": lambda gap: by(DRAWS, gap),
        "base": lambda gap: draw(base, layout, gap, 1)[0],
        f"base, best of {DRAWS}": lambda gap: best(gap, draw(base, layout, gap, DRAWS)),
    }
    return ways, judge


def pairs(text: str) -> list[tuple[str, str]]:
    return list(pairwise(text.lower().split()))


def doubled(gap: Gap, fill: str) -> bool:
    """Whether a word stands twice in a row, in the fill or at its edges."""
    words = [*gap.left.split()[-1:], *fill.split(), *gap.right.split()[:1]]
    return any(a.lower() == b.lower() for a, b in pairwise(words))


def told(context: Context) -> set[tuple[str, str]]:
    texts = [f"{trace.query} {trace.response} {trace.desired or ''}" for trace in context]
    return {pair for text in texts for pair in pairs(text)}


def columns(
    cases: Sequence[Gap], fills: Sequence[str], scores: Iterable[float]
) -> dict[str, float]:
    chrf = sacrebleu.CHRF()
    all_pairs = [pair for fill in fills for pair in pairs(fill)]
    copied = [pair in told(g.context) for g, fill in zip(cases, fills, strict=True)
              for pair in pairs(fill)]  # fmt: skip
    return {
        "nats": mean(scores),
        "chrf": mean(
            chrf.sentence_score(fill, [g.text]).score for g, fill in zip(cases, fills, strict=True)
        ),
        "distinct_2": len(set(all_pairs)) / max(1, len(all_pairs)),
        "doubled": mean(doubled(g, fill) for g, fill in zip(cases, fills, strict=True)),
        "copied": mean(copied) if copied else 0.0,
        "words": mean(len(fill.split()) for fill in fills),
    }


def texts_of(args: argparse.Namespace) -> dict[str, Any]:
    cases = gaps(held_out(args)[1], args.tokens)
    ways, judge = fillers(args.adapter)
    found = {}
    for name, fill in ways.items():
        fills = [fill(gap) for gap in cases]
        scores = [judge(gap, text) for gap, text in zip(cases, fills, strict=True)]
        found[name] = {**columns(cases, fills, scores), "n": len(cases)}
        if not args.json:
            row = "  ".join(f"{key} {value:.3f}" for key, value in found[name].items())
            print(f"{name:22} {row}", flush=True)
            for gap, text in list(zip(cases, fills, strict=True))[: args.show]:
                print(f"    …{gap.left[-40:]!r} [{text}] {gap.right[:40]!r}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("nats", "texts"))
    held_out_options(parser)
    parser.add_argument("--adapter", type=Path, default=SHIPPED_ADAPTER)
    parser.add_argument("--base", default="builtin", help="of nats, as of remask adapt")
    parser.add_argument("--revision", help="of nats, as of remask adapt")
    parser.add_argument(
        "--what", choices=list(MASK_PATTERNS), nargs="+", default=list(MASK_PATTERNS)
    )
    parser.add_argument("--tokens", type=int, default=8, help="of the span of texts")
    parser.add_argument("--show", type=int, default=0, help="print the first so many texts")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = nats_of(args) if args.part == "nats" else texts_of(args)
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
