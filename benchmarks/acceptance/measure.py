"""What real candidates are like: how much they gain or lose, and on how many rows they differ.

The embedded denoiser writes candidates for the terse seed prompt, from train rows as in a search;
each is asked on the same other train rows as the seed prompt. No test row is read.
"""

from pathlib import Path

from benchmarks.acceptance.candidates import SEED, Arm, drawn
from benchmarks.acceptance.fit import Seen
from benchmarks.search.lab import Protocol, embedded_target, open_lab, search_rows
from benchmarks.tasks import load_task

READ, ASKED = 48, 96  # rows whose traces are read, rows asked


def measure(name: str, data: Path, n: int) -> tuple[float, list[Seen]]:
    """The accuracy of the seed prompt on ASKED rows, and what up to `n` candidates do on them."""
    bench, sizes = load_task(name), Protocol(calls=10**9, train=READ, validation=ASKED)
    rows = search_rows(bench, data, SEED, sizes)
    lab = open_lab(bench, rows, embedded_target(bench), sizes.calls, SEED)
    ids, seen = lab.task.ids("validation"), []
    before = lab.task.evaluate(lab.start, ids)
    for proposal in drawn(lab, Arm(), n)[0]:
        after = lab.task.evaluate(proposal.prompt, ids)
        gaps = [a.score - b.score for a, b in zip(after, before, strict=True)]
        seen.append(Seen(proposal.masker, sum(g > 0 for g in gaps), sum(g < 0 for g in gaps)))
        print(len(seen), seen[-1], proposal.prompt.text, flush=True)
    return sum(o.score for o in before) / len(before), seen
