"""What real candidates are like: how much they gain or lose, and on how many rows they differ.

The embedded denoiser writes candidates for the terse seed prompt, from train rows as in a search;
each is asked on the same other train rows as the seed prompt. No test row is read.
"""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.search.lab import make_task
from benchmarks.search.play import embedded_target
from benchmarks.tasks import load_task
from remask.config import make_config
from remask.denoisers import make_denoiser
from remask.identity import rng_for
from remask.prompt import Prompt
from remask.proposers import make_proposer
from remask.task.dataset import Columns, load

READ, ASKED, DRAWN = 48, 96, 24  # rows whose traces are read, rows asked, candidates of one draw


@dataclass(frozen=True, slots=True)
class Seen:
    """One real candidate against its parent on ASKED rows."""

    masker: str
    wins: int
    losses: int


def measure(name: str, data: Path, draws: int) -> tuple[float, list[Seen]]:
    """The accuracy of the seed prompt on ASKED rows, and what candidates do on them."""
    bench = load_task(name)
    rows = bench.read(data, "train")
    order = rng_for(0, "acceptance", name).permutation(len(rows))[: READ + ASKED]
    split = ["train"] * READ + ["validation"] * ASKED
    chosen = [{**rows[i], "split": s} for i, s in zip(order, split, strict=True)]
    examples = load(chosen, Columns(bench.input, "label", "split"), (0.25, 0.25, 0.5)).examples
    task, start = make_task(bench, examples, embedded_target(bench)), Prompt(bench.seed_prompt)
    config = make_config({"prompt": bench.seed_prompt, "metric": {"answer": bench.answer}}, name)
    proposer = make_proposer(config, start, make_denoiser(config.dlm), bench.labels)
    read = task.evaluate(start, task.ids("train"))
    traces = [o.trace for o in read if o.trace is not None]
    before = task.evaluate(start, task.ids("validation"))
    known, seen = {start.id}, []
    for draw in range(draws):
        for proposal in proposer.propose(start, traces, DRAWN, draw):
            if proposal.objection or proposal.prompt.id in known:
                continue
            known.add(proposal.prompt.id)
            after = task.evaluate(proposal.prompt, task.ids("validation"))
            gaps = [a.score - b.score for a, b in zip(after, before, strict=True)]
            seen.append(Seen(proposal.masker, sum(g > 0 for g in gaps), sum(g < 0 for g in gaps)))
            print(len(seen), proposal.masker, seen[-1], proposal.prompt.text, flush=True)
    return sum(o.score for o in before) / len(before), seen
