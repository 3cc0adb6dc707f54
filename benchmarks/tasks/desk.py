"""The whole way on a task of Inspect: protocol proven here, quality unproven.

    python benchmarks/tasks/desk.py --seeds 0 1 2 --controls 0 --json benchmarks/results/desk.json

An agent on the loopback (examples/inspect) closes hard cases wrongly unless its policy mentions a
paper. The papers are named in the reviewer's words alone, the explanations of the scores. remask
with the built-in denoiser is compared with random word edits under the same budget. That the agent
is scripted proves that traces, feedback, guard, budget, search and verdict work together on a real
task of Inspect over HTTP. It proves nothing about a capable model: see docs/how-to/agents.md.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the checkout
sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "inspect"))

from desk import POLICY
from loopback import Loopback, Message, call, say

from benchmarks.optimisers.remask import RandomWords
from benchmarks.record import ROOT, made_by, write_json
from remask import optimize
from remask.api.build_proposer import make_proposer
from remask.config import make_config
from remask.models.backbone.builtin_weights import load_base
from remask.ports import DenoiserModel
from remask.prompt import Prompt

TASK = f"{ROOT / 'examples' / 'inspect' / 'desk.py'}@desk"
PAPERS = ("receipt", "warranty", "invoice", "voucher", "serial")
WORDS_PER_TOKEN = 0.75  # rough, for English
CANDIDATES, ROUNDS = 12, 3
BUDGET = 800  # model calls, the 160 of the sealed test among them: about 36 candidates
GUIDANCE = 1.0  # by traces: what they lack stands in their words here (docs/how-to/agents.md)


def agent(model: str, messages: list[Message]) -> Message:
    """Case numbers that are odd are hard: right only if the policy names a paper."""
    if messages[-1]["role"] == "tool":
        return say("It is done.")
    hard = int(re.search(r"Case (\d+)", messages[-1]["content"])[1]) % 2 == 1
    known = names_a_paper(messages[0]["content"])
    return call("close_case", code="refund" if hard and known else "repair")


def names_a_paper(policy: str) -> bool:
    return not set(PAPERS).isdisjoint(re.findall(r"\w+", policy.lower()))


def random_words() -> RandomWords:
    """The control: each hole is filled with random English words of its length."""
    base = load_base()
    every = (base.decode([i]) for i in range(base.size))
    words = sorted({text.strip() for text in every if re.fullmatch(r" [a-z]{3,}", text)})
    return RandomWords(base, words, WORDS_PER_TOKEN)


def chance(seeds: int, candidates: int = CANDIDATES, rounds: int = ROUNDS) -> float:
    """The share of seeds in which random word edits name a paper at all: whoever does not cannot
    win. No model is called, so many seeds can be looked at."""
    config = make_config({"prompt": POLICY, "search": {"candidates": candidates}}, "control")
    start = Prompt.parse(POLICY)
    proposer = make_proposer(config, start, random_words())
    found = 0
    for seed in range(seeds):
        drawn = (proposer.propose(start, (), candidates, 1000 * seed + r) for r in range(rounds))
        fine = (p.prompt.text for batch in drawn for p in batch if not p.violation)
        found += any(map(names_a_paper, fine))
    return found / seeds


def play(seed: int, dlm: str | DenoiserModel, run_dir: Path) -> dict[str, Any]:
    """One whole run; what it found and spent."""
    started = time.monotonic()
    with Loopback(agent) as server:
        result = optimize(
            POLICY,
            task=TASK,
            target="inspect:openai-api/loopback/agent",
            base_url=server.url,
            denoiser=dlm,
            budget=BUDGET,
            seed=seed,
            run_dir=run_dir,
            settings={
                "task": {"calls_per_sample": 2},
                "search": {"candidates": CANDIDATES},
                "denoiser": {"guidance": GUIDANCE},
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
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of remask")
    parser.add_argument("--controls", type=int, nargs="*", default=[0], help="of random edits")
    parser.add_argument("--chance", type=int, default=300, help="seeds of proposals alone")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    os.environ.setdefault("LOOPBACK_API_KEY", "none")
    about = made_by(__file__)
    share = chance(options.chance)
    print(f"random word edits name a paper in {share:.3f} of {options.chance} seeds", flush=True)
    found: dict[str, Any] = {
        **about,
        "chance": {"seeds": options.chance, "share": share},
        "builtin": [],
        "random": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, seeds in (("builtin", options.seeds), ("random", options.controls)):
            for seed in seeds:
                dlm = "builtin" if name == "builtin" else random_words()
                row = play(seed, dlm, Path(folder) / f"{name}-{seed}")
                found[name].append(row)
                print(name, {k: v for k, v in row.items() if k != "prompt"}, flush=True)
                if options.json:
                    write_json(options.json, found)


if __name__ == "__main__":
    main()
