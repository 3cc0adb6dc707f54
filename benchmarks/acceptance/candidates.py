"""What single edits of a prompt are worth: each candidate of an arm is asked on many rows.

    python benchmarks/acceptance/candidates.py --data FOLDER --out FOLDER [--tasks TASK ...]
                                               [--arms ARM ...]

A search shows one number a run, and chance decides much of it. Here every candidate is asked on
the same rows, so arms that differ in one setting can be told apart with far fewer calls. Traces
and rows are those of a seed that no run of the grid has. What counts is `raced`: the gain over the
start prompt on other rows of the candidate that leads on as many rows as a round of the search
asks, which is what a setting is worth to the search. --out keeps one file an arm, and a finished
arm is not run again; one of other settings is refused. The table comes last.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the checkout

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.optimisers.remask import RandomWords, frequent_words
from benchmarks.record import write_json
from benchmarks.search.lab import Lab, Protocol, embedded_target, open_lab, search_rows
from benchmarks.tasks import NAMES, load_task
from remask.api.build_models import make_denoiser
from remask.api.build_proposer import make_proposer
from remask.config import make_config
from remask.models.backbone.builtin_weights import load_base
from remask.ports import Choose, Context, DenoiserModel, Proposal
from remask.propose.select_traces import select
from remask.search.plan import MAX_CANDIDATES, MAX_TRAIN_ROWS

SEED = 100  # of no run of the grid
DRAWS = 4000


@dataclass(frozen=True, slots=True)
class Arm:
    """What differs from remask as shipped."""

    dlm: dict[str, Any] | None = None  # settings of [denoiser]
    search: dict[str, Any] | None = None  # settings of [search]
    choose: Choose = select
    random: bool = False  # words by chance instead of the DLM's


def unread(*asked: Any) -> Context:
    """No traces at all."""
    return ()


def answers_alone(*asked: Any) -> Context:
    """The right answers, without what the target said instead."""
    return tuple(replace(t, response=t.desired or t.response, score=None) for t in select(*asked))


def failures_alone(*asked: Any) -> Context:
    """What the target said, without the right answers."""
    return tuple(replace(t, desired=None) for t in select(*asked))


ARMS = {
    "remask": Arm(),
    "random": Arm(random=True),
    "unread": Arm(choose=unread),
    "answers": Arm(choose=answers_alone),
    "failures": Arm(choose=failures_alone),
    "insert": Arm(search={"maskers": ("insert",)}),
    "span": Arm(search={"maskers": ("span",)}),
    "rewrite": Arm(search={"maskers": ("rewrite",)}),
    "sentence": Arm(search={"maskers": ("sentence",)}),
    "attribution": Arm(search={"maskers": ("attribution",)}),
    "one-step": Arm(denoiser={"steps": 1}),
    "guided": Arm(denoiser={"guidance": 1.0}),
    "warm": Arm(denoiser={"temperature": 0.7}),
}


def main() -> None:
    arg = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arg.add_argument("--data", type=Path, required=True)
    arg.add_argument("--out", type=Path, required=True)
    arg.add_argument("--tasks", nargs="+", choices=NAMES, default=["sst2", "letters"])
    arg.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    arg.add_argument("--start", default="", help="prompt to begin with; default: the task's own")
    arg.add_argument("--candidates", type=int, default=2 * MAX_CANDIDATES)
    arg.add_argument("--rows", type=int, default=100)
    args = arg.parse_args()
    torch.set_num_threads(1)
    asked = {"start": args.start, "candidates": args.candidates, "rows": args.rows}
    table = []
    for task in args.tasks:
        for name in args.arms:
            path = args.out / f"{task}.{name}.json"
            if not path.exists():
                row = played(task, ARMS[name], args.data, args.start, args.candidates, args.rows)
                write_json(path, {"asked": asked, **row})
            row = json.loads(path.read_text("utf-8"))
            if row["asked"] != asked:
                raise SystemExit(
                    f"{path}: made with {row['asked']}, asked now is {asked}; give another --out"
                )
            table.append(line(task, name, row))
            print(table[-1], flush=True)
    print("\n" + "\n".join([HEAD, *table]))


def played(
    task: str, arm: Arm, data: Path, start: str, candidates: int, rows: int
) -> dict[str, Any]:
    """The candidates of an arm with their scores on all rows."""
    bench = load_task(task)
    if start:
        bench = replace(bench, seed_prompt=start)
    sizes = Protocol(calls=10**9, validation=rows)
    examples = search_rows(bench, data, SEED, sizes)
    lab = open_lab(bench, examples, embedded_target(bench), sizes.calls, SEED)
    since = time.perf_counter()
    proposals, refused = drawn(lab, arm, candidates)
    seconds = time.perf_counter() - since
    ids = lab.task.ids("validation")
    before = lab.task.evaluate(lab.start, ids)
    answered = [(p.masker, p.prompt.text, lab.task.evaluate(p.prompt, ids)) for p in proposals]
    return {
        "start": lab.start.text,
        "start_scores": [o.score for o in before],
        "start_soft": [o.ranking_score for o in before],
        "refused": refused,
        "seconds": round(seconds, 1),
        "candidates": [
            {
                "masker": masker,
                "prompt": text,
                "scores": [round(o.score, 4) for o in outcomes],
                "soft": [round(o.ranking_score, 4) for o in outcomes],
            }
            for masker, text, outcomes in answered
        ],
    }


def drawn(lab: Lab, arm: Arm, n: int) -> tuple[list[Proposal], float]:
    """`n` different candidates that passed the guard, and the share of all that did not."""
    values = lab.config.model_dump()
    config = make_config(
        {
            **values,
            "denoiser": values["denoiser"] | (arm.dlm or {}),
            "search": values["search"] | (arm.search or {}),
        },
        "arm",
    )
    base = load_base()
    words = RandomWords(base, frequent_words(base)) if arm.random else None
    denoiser: DenoiserModel = words or make_denoiser(config.denoiser)
    proposer = make_proposer(config, lab.start, denoiser, lab.bench.labels, arm.choose)
    outcomes = lab.task.evaluate(lab.start, lab.task.ids("train"))
    traces = tuple(o.trace for o in outcomes if o.trace is not None)
    found, total, refused = dict[str, Proposal](), 0, 0
    for seed in range(8):
        for proposal in proposer.propose(lab.start, traces, MAX_CANDIDATES, seed):
            total, refused = total + 1, refused + bool(proposal.violation)
            if not proposal.violation and proposal.prompt.id != lab.start.id:
                found.setdefault(proposal.prompt.id, proposal)
        if len(found) >= n:
            break
    return list(found.values())[:n], refused / total


HEAD = (
    f"{'task':8} {'arm':9} {'n':>3} {'refused':>7} {'start':>6} {'mean':>6} {'best':>6} "
    f"{'better':>7} {'raced':>15} {'s':>4}"
)


def line(task: str, name: str, row: dict[str, Any]) -> str:
    """Shares and scores of 0 to 1; `raced` in points of 100, with the spread over redrawn
    candidates and rows."""
    start = np.array(row["start_scores"])
    scores = np.array([c["scores"] for c in row["candidates"]])
    leads = np.array([c["soft"] for c in row["candidates"]]) - np.array(row["start_soft"])
    means, gains = scores.mean(1), raced(scores - start, leads)
    return (
        f"{task:8} {name:9} {len(means):3} {row['refused']:7.2f} {start.mean():6.3f} "
        f"{means.mean():6.3f} {means.max():6.3f} {(means > start.mean()).mean():7.2f} "
        f"{100 * gains.mean():+7.1f} ± {100 * gains.std():4.1f} {row['seconds']:4.0f}"
    )


def raced(gains: NDArray[np.float64], leads: NDArray[np.float64]) -> NDArray[np.float64]:
    """(candidates, rows) gains and soft leads: of CANDIDATES drawn ones, the gain on the other rows
    of the one that leads on TRAINED drawn rows, 0 where none leads; (DRAWS,)."""
    rng = np.random.default_rng(0)
    found = np.zeros(DRAWS)
    for draw in range(DRAWS):
        some = rng.choice(len(gains), min(MAX_CANDIDATES, len(gains)), replace=False)
        rows = rng.permutation(gains.shape[1])
        ahead = leads[np.ix_(some, rows[:MAX_TRAIN_ROWS])].mean(1)
        if ahead.max() > 0:
            found[draw] = gains[some[ahead.argmax()], rows[MAX_TRAIN_ROWS:]].mean()
    return found


if __name__ == "__main__":
    main()
