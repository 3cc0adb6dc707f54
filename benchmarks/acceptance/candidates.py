"""Measure what single edits of a prompt are worth: each candidate is asked on many rows.

    python -m benchmarks.acceptance.candidates --data FOLDER --out FOLDER [--tasks TASK …]
                                               [--arms ARM …]

A whole search gives one number per run, and chance decides much of it. Here all candidates are
asked on the same rows, so arms that differ in one setting can be told apart with far fewer calls.
Traces and rows belong to a seed that no run of the search benchmark has. The column "raced" is the
gain over the start prompt of the candidate that leads on as many rows as a round of the search
asks, measured on the other rows: that is what a setting is worth to the search. The output folder
keeps one file per arm. A finished arm is not run again; a file of other settings is refused. The
table is printed at the end.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.optimisers.remask import RandomWords, find_frequent_words
from benchmarks.record import make_parser, read_json, write_json
from benchmarks.search.lab import Lab, Protocol, load_search_rows, load_target, open_lab
from benchmarks.tasks import NAMES, load_task
from benchmarks.tasks.hidden import PARTNERS
from remask.api.build_models import make_denoiser
from remask.api.build_proposer import make_proposer
from remask.config import make_config
from remask.ids import rng_for
from remask.models.backbone.builtin_weights import load_base
from remask.ports import Choose, Context, DenoiserModel, Proposal, TargetModel
from remask.propose.select_traces import select
from remask.search.plan import MAX_CANDIDATES, MAX_TRAIN_ROWS
from remask.types import Trace

SEED = 100  # of no run of the grid
DRAWS = 4000


@dataclass(frozen=True, slots=True)
class Arm:
    """One change to remask as shipped."""

    denoiser: dict[str, Any] | None = None  # settings of [denoiser]
    search: dict[str, Any] | None = None  # settings of [search]
    choose: Choose = select
    random: bool = False  # random words instead of the denoiser's
    traces: str = "right"  # or "shuffled": of another task, or with answers of other rows; or "none"


def read_nothing(*asked: Any) -> Context:
    """Choose no traces."""
    return ()


def read_answers(*asked: Any) -> Context:
    """Choose traces, but show only the right answers, not the target's."""
    return tuple(replace(t, response=t.desired or t.response, score=None) for t in select(*asked))


def read_failures(*asked: Any) -> Context:
    """Choose traces, but show only the target's answers, not the right ones."""
    return tuple(replace(t, desired=None) for t in select(*asked))


def _vary(name: str, maskers: tuple[str, ...] | None) -> dict[str, Arm]:
    """The arm with right traces, with shuffled ones and with none."""
    search = {"maskers": maskers} if maskers else None
    return {
        name: Arm(search=search),
        f"{name}-shuffled": Arm(search=search, traces="shuffled"),
        f"{name}-none": Arm(search=search, traces="none"),
    }


ARMS = {
    **_vary("remask", None),
    **_vary("insert", ("insert",)),
    **_vary("anchor", ("anchor",)),
    **_vary("library", ("library",)),
    "random": Arm(random=True),
    "unread": Arm(choose=read_nothing),
    "answers": Arm(choose=read_answers),
    "failures": Arm(choose=read_failures),
    "span": Arm(search={"maskers": ("span",)}),
    "rewrite": Arm(search={"maskers": ("rewrite",)}),
    "sentence": Arm(search={"maskers": ("sentence",)}),
    "attribution": Arm(search={"maskers": ("attribution",)}),
    "delete": Arm(search={"maskers": ("delete",)}),
    "one-step": Arm(denoiser={"steps": 1}),
    "guided": Arm(denoiser={"guidance": 1.0}),
    "warm": Arm(denoiser={"temperature": 0.7}),
}
PLAIN = [name for name in ARMS if not name.endswith(("-shuffled", "-none"))]


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__file__, __doc__)
    option = parser.add_argument
    option("--data", type=Path, required=True, help="The folder of the data sets.")
    option("--out", type=Path, required=True, help="The folder that keeps one file per arm.")
    option(
        "--tasks", nargs="+", choices=NAMES, default=["sst2", "letters"],
        help="Default: sst2 letters.",
    )  # fmt: skip
    option(
        "--arms", nargs="+", choices=list(ARMS), default=PLAIN,
        help="Default: all arms with right traces.",
    )  # fmt: skip
    option("--start", default="", help="The start prompt. Default: the seed prompt of the task.")
    option("--candidates", type=int, default=2 * MAX_CANDIDATES, help="Candidates of each arm.")
    option("--rows", type=int, default=100, help="Rows that each candidate is asked on.")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    asked = {"start": args.start, "candidates": args.candidates, "rows": args.rows}
    table = []
    for task in args.tasks:
        for name in args.arms:
            path = args.out / f"{task}.{name}.json"
            if not path.exists():
                row = play_arm(task, ARMS[name], args.data, args.start, args.candidates, args.rows)
                write_json(path, {"asked": asked, **row})
            row = read_json(path)
            if row["asked"] != asked:
                raise SystemExit(
                    f"{path}: made with {row['asked']}, asked now is {asked}; give another --out"
                )
            table.append(format_line(task, name, row))
            print(table[-1], flush=True)
    print("\n" + "\n".join([HEAD, *table]))


def play_arm(task: str, arm: Arm, data: Path, start: str, candidates: int, rows: int) -> dict[str, Any]:
    """Draw the candidates of an arm and score them on all rows."""
    bench = load_task(task)
    if start:
        bench = replace(bench, seed_prompt=start)
    sizes = Protocol(calls=10**9, validation=rows)
    examples = load_search_rows(bench, data, SEED, sizes)
    target = load_target(bench)
    lab = open_lab(bench, examples, target, sizes.calls, SEED)
    traces = find_traces(lab, arm, data, target)
    since = time.perf_counter()
    proposals, refused = draw_candidates(lab, arm, traces, candidates)
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


def find_traces(lab: Lab, arm: Arm, data: Path, target: TargetModel) -> tuple[Trace, ...]:
    """The traces of the start prompt on the train rows, as the arm has them."""
    if arm.traces == "none":
        return ()
    partner = PARTNERS.get(lab.bench.name) if arm.traces == "shuffled" else None
    if partner:
        bench = load_task(partner)
        examples = load_search_rows(bench, data, SEED, Protocol(calls=lab.cap))
        lab = open_lab(bench, examples, target, lab.cap, SEED)
    outcomes = lab.task.evaluate(lab.start, lab.task.ids("train"))
    traces = tuple(o.trace for o in outcomes if o.trace is not None)
    return permute_traces(traces) if arm.traces == "shuffled" and not partner else traces


def permute_traces(traces: Sequence[Trace]) -> tuple[Trace, ...]:
    """Give each trace the right answer and the feedback of another row."""
    order = rng_for(SEED, "shuffle").permutation(len(traces))
    others = [traces[i] for i in np.roll(order, 1)[np.argsort(order)]]
    return tuple(
        replace(trace, desired=other.desired, feedback=other.feedback)
        for trace, other in zip(traces, others, strict=True)
    )


def draw_candidates(lab: Lab, arm: Arm, traces: Sequence[Trace], n: int) -> tuple[list[Proposal], float]:
    """Draw `n` different candidates that passed the guard; also the share that was refused."""
    values = lab.config.model_dump()
    config = make_config(
        {
            **values,
            "denoiser": values["denoiser"] | (arm.denoiser or {}),
            "search": values["search"] | (arm.search or {}),
        },
        "arm",
    )
    base = load_base()
    words = RandomWords(base, find_frequent_words(base)) if arm.random else None
    denoiser: DenoiserModel = words or make_denoiser(config.denoiser)
    proposer = make_proposer(config, lab.start, denoiser, lab.bench.labels, arm.choose)
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
    f"{'task':9} {'arm':16} {'n':>3} {'refused':>7} {'start':>6} {'mean':>6} {'best':>6} "
    f"{'better':>7} {'raced':>15} {'s':>4}"
)


def format_line(task: str, name: str, row: dict[str, Any]) -> str:
    """One line of the table. Shares and scores are from 0 to 1; `raced` is in points of 100, with
    the spread over redrawn candidates and rows."""
    start = np.array(row["start_scores"])
    scores = np.array([c["scores"] for c in row["candidates"]])
    leads = np.array([c["soft"] for c in row["candidates"]]) - np.array(row["start_soft"])
    means, gains = scores.mean(1), race_candidates(scores - start, leads)
    return (
        f"{task:9} {name:16} {len(means):3} {row['refused']:7.2f} {start.mean():6.3f} "
        f"{means.mean():6.3f} {means.max():6.3f} {(means > start.mean()).mean():7.2f} "
        f"{100 * gains.mean():+7.1f} ± {100 * gains.std():4.1f} {row['seconds']:4.0f}"
    )


def race_candidates(gains: NDArray[np.float64], leads: NDArray[np.float64]) -> NDArray[np.float64]:
    """The gain of the candidate that a round of the search would pick, drawn DRAWS times.

    gains, leads: (candidates, rows), of scores and of ranking scores. Each draw takes CANDIDATES
    candidates and TRAINED rows, and gives the gain on the other rows of the candidate that leads
    on the drawn ones, or 0 where none leads. Returns (DRAWS,).
    """
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
