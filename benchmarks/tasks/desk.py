"""Optimise a scripted agent of Inspect from end to end: the protocol is tested, not the quality.

    python -m benchmarks.tasks.desk --seeds 0 1 2 --controls 0 --out benchmarks/results/desk.json

An agent on the loopback (examples/inspect) closes hard cases wrongly unless its policy mentions a
paper, such as a receipt. Only the reviewer names the papers, in the explanations of the scores.
remask with the built-in denoiser is compared with random word edits under the same budget. Because
the agent is scripted, success shows that traces, feedback, guard, budget, search and verdict work
together on a task of Inspect over HTTP. It says nothing about a capable model: see
docs/how-to/agents.md.
"""

import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.optimisers.remask import RandomWords
from benchmarks.record import ROOT, describe_run, make_parser, write_json
from examples.inspect.desk import POLICY
from examples.inspect.loopback import Loopback, Message, call, say
from remask import Denoiser, InspectTask, Search, Target, optimize
from remask.api.build_proposer import make_proposer
from remask.config import make_config
from remask.models.backbone.builtin_weights import load_base
from remask.ports import DenoiserModel
from remask.prompt import Prompt

TASK = f"{ROOT / 'examples' / 'inspect' / 'desk.py'}@desk"
PAPERS = ("receipt", "warranty", "invoice", "voucher", "serial")
WORDS_PER_TOKEN = 0.75  # rough, for English
CANDIDATES, ROUNDS = 12, 3
BUDGET = 800  # model calls, of which the sealed test takes 160: about 36 candidates
# By traces: here the words that the policy lacks stand in the feedback (docs/how-to/agents.md).
GUIDANCE = 1.0


def answer_as_agent(model: str, messages: list[Message]) -> Message:
    """Close a case. Odd cases are hard: they are closed right only if the policy names a paper."""
    if messages[-1]["role"] == "tool":
        return say("It is done.")
    hard = int(re.search(r"Case (\d+)", messages[-1]["content"])[1]) % 2 == 1
    known = names_a_paper(messages[0]["content"])
    return call("close_case", code="refund" if hard and known else "repair")


def names_a_paper(policy: str) -> bool:
    return not set(PAPERS).isdisjoint(re.findall(r"\w+", policy.lower()))


def make_random_words() -> RandomWords:
    """The control, which fills each hole with random English words of its length."""
    base = load_base()
    every = (base.decode([i]) for i in range(base.vocab_size))
    words = sorted({text.strip() for text in every if re.fullmatch(r" [a-z]{3,}", text)})
    return RandomWords(base, words, WORDS_PER_TOKEN)


def measure_chance(seeds: int, candidates: int = CANDIDATES, rounds: int = ROUNDS) -> float:
    """The share of seeds in which random word edits name a paper, without which they cannot win.

    No model is called, so many seeds can be tried.
    """
    config = make_config({"prompt": POLICY, "search": {"candidates": candidates}}, "control")
    start = Prompt.parse(POLICY)
    proposer = make_proposer(config, start, make_random_words())
    found = 0
    for seed in range(seeds):
        drawn = (proposer.propose(start, (), candidates, 1000 * seed + r) for r in range(rounds))
        fine = (p.prompt.text for batch in drawn for p in batch if not p.violation)
        found += any(map(names_a_paper, fine))
    return found / seeds


def run_once(seed: int, denoiser: Denoiser | DenoiserModel, run_dir: Path) -> dict[str, Any]:
    """Run remask once; the verdict, the prompt and the costs."""
    started = time.monotonic()
    with Loopback(answer_as_agent) as server:
        result = optimize(
            POLICY,
            task=InspectTask(TASK, calls_per_sample=2),
            target=Target("inspect:openai-api/loopback/agent", base_url=server.url),
            denoiser=denoiser,
            max_calls=BUDGET,
            search=Search(candidates=CANDIDATES),
            seed=seed,
            run_dir=run_dir,
        )
        requests = server.requests
    assert result.test is not None
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


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__file__, __doc__)
    option = parser.add_argument
    option("--seeds", type=int, nargs="*", default=[0, 1, 2], help="The seeds of remask.")
    option("--controls", type=int, nargs="*", default=[0], help="The seeds of random edits.")
    option("--chance", type=int, default=300, help="Seeds for the share of lucky random edits.")
    option("--out", type=Path, help="The results file. Default: none is written.")
    args = parser.parse_args(words)
    os.environ.setdefault("LOOPBACK_API_KEY", "none")
    about = describe_run(__file__, words)
    share = measure_chance(args.chance)
    print(f"random word edits name a paper in {share:.3f} of {args.chance} seeds", flush=True)
    found: dict[str, Any] = {
        **about,
        "chance": {"seeds": args.chance, "share": share},
        "builtin": [],
        "random": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, seeds in (("builtin", args.seeds), ("random", args.controls)):
            for seed in seeds:
                random = name == "random"
                denoiser = make_random_words() if random else Denoiser(guidance=GUIDANCE)
                row = run_once(seed, denoiser, Path(folder) / f"{name}-{seed}")
                found[name].append(row)
                print(name, {k: v for k, v in row.items() if k != "prompt"}, flush=True)
                if args.out:
                    write_json(args.out, found)


if __name__ == "__main__":
    main()
