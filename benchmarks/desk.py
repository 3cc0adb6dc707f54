"""The whole way on a task of Inspect: protocol proven here, quality unproven.

    python benchmarks/desk.py --seeds 3 --controls 10 --json benchmarks/results/desk.json

An agent on the loopback (examples/inspect) closes hard cases wrongly unless its policy mentions a
paper. The papers are named in the reviewer's words alone, the explanations of the scores. remask
with the embedded denoiser is compared with random word edits under the same budget. That the agent
is scripted proves that traces, feedback, guard, budget, search and verdict work together on a real
task of Inspect over HTTP. It proves nothing about a capable model: see docs/inspect.md.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from remask import optimize
from remask.backbone.weights import load_base
from remask.identity import rng_for
from remask.ports import Canvas, Context, Denoiser, Fill, Hole

EXAMPLE = Path(__file__).parent.parent / "examples" / "inspect"
sys.path.insert(0, str(EXAMPLE))
from desk import POLICY  # noqa: E402
from loopback import Loopback, Message, call, say  # noqa: E402

TASK = f"{EXAMPLE / 'desk.py'}@desk"
PAPERS = ("receipt", "warranty", "invoice", "voucher", "serial", "guarantee")
WORDS_PER_TOKEN = 0.75  # rough, for English
BUDGET = 800  # model calls, the 160 of the sealed test among them: about 36 candidates


def agent(model: str, messages: list[Message]) -> Message:
    """Case numbers that are odd are hard: right only if the policy names a paper."""
    if messages[-1]["role"] == "tool":
        return say("It is done.")
    policy, case = messages[0]["content"].lower(), messages[-1]["content"]
    hard = int(re.search(r"Case (\d+)", case)[1]) % 2 == 1
    known = any(re.search(rf"\b{paper}\b", policy) for paper in PAPERS)
    return call("close_case", code="refund" if hard and known else "repair")


class RandomWords:
    """The control: a denoiser that fills each hole with random English words of that length."""

    def __init__(self) -> None:
        base = load_base()
        words = {base.decode([i]) for i in range(base.size)}
        self.words = sorted(w.strip() for w in words if re.fullmatch(r" [a-z]{3,}", w))
        self._count = base.encode

    def count(self, text: str) -> int:
        return len(self._count(text))

    def infill(self, context: Context, canvases: Sequence[Canvas], seed: int) -> list[Fill]:
        rng = rng_for(seed, "random words")
        return [
            Fill(tuple(self._text(rng, p.tokens) for p in canvas if isinstance(p, Hole)), 0.0)
            for canvas in canvases
        ]

    def _text(self, rng: Any, tokens: int) -> str:
        size = round(WORDS_PER_TOKEN * tokens)
        return " ".join(self.words[i] for i in rng.integers(len(self.words), size=size))


def play(seed: int, dlm: str | Denoiser, run_dir: Path) -> dict[str, Any]:
    """One whole run; what it found and spent."""
    started = time.monotonic()
    with Loopback(agent) as server:
        result = optimize(
            POLICY,
            task=TASK,
            target="inspect:openai-api/loopback/agent",
            base_url=server.url,
            dlm=dlm,
            budget=BUDGET,
            seed=seed,
            run_dir=run_dir,
            settings={
                "task": {"calls_per_sample": 2},
                "search": {"candidates": 12},
            },
        )
        requests = server.requests
    return {
        "seed": seed,
        "verdict": result.verdict,
        "before": result.test.baseline,
        "after": result.test.best,
        "prompt": result.prompt,
        "calls": result.spend.calls,
        "requests": requests,
        "candidates": result.candidates,
        "rejected": result.rejected,
        "minutes": (time.monotonic() - started) / 60,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="runs with the embedded denoiser")
    parser.add_argument("--controls", type=int, default=10, help="runs with random word edits")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    os.environ.setdefault("LOOPBACK_API_KEY", "none")
    found: dict[str, list[dict[str, Any]]] = {"embedded": [], "random": []}
    with tempfile.TemporaryDirectory() as folder:
        for name, seeds in (("embedded", options.seeds), ("random", options.controls)):
            for seed in range(seeds):
                dlm = "embedded" if name == "embedded" else RandomWords()
                row = play(seed, dlm, Path(folder) / f"{name}-{seed}")
                found[name].append(row)
                print(name, {k: v for k, v in row.items() if k != "prompt"}, flush=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    if options.json:
        text = {"command": " ".join(sys.argv), "commit": commit.strip(), **found}
        options.json.write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
