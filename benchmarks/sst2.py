"""SST-2 with the embedded models: a terse seed prompt against the optimised one, on the test file.

    python benchmarks/sst2.py --data FOLDER [--seeds 0 1 2] [--calls 2400] [--runs FOLDER]

FOLDER holds train.jsonl, validation.jsonl and test.jsonl with the columns input and label. The
search may spend `--calls` target calls; the test file is scored once at the end of each seed. The
seeds differ in the search and in which train and validation rows it gets. With --runs each seed
keeps its run directory there: a seed that was cut goes on, a finished one is not played again.
Writes benchmarks/results/sst2.json with the command and the commit.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from remask import optimize, resume
from remask.api.job import Hooks
from remask.events import Tested, decode, fold
from remask.ids import rng_for
from remask.runs.store import Store
from remask.stats import student

SEED_PROMPT = "Classify the sentiment."
ANSWER = "The sentiment is {label}."
RESULTS = Path(__file__).parent / "results" / "sst2.json"


def rows_of(folder: Path, seed: int, train: int, validation: int) -> list[dict[str, str]]:
    """Random train and validation rows, and the whole test file."""
    out = []
    for split, n in (("train", train), ("validation", validation), ("test", None)):
        rows = [json.loads(line) for line in (folder / f"{split}.jsonl").open()]
        if n is not None:
            order = rng_for(seed, "sst2", split).permutation(len(rows))[:n]
            rows = [rows[i] for i in order]
        out += [{**row, "split": split} for row in rows]
    return out


def play(folder: Path, seed: int, calls: int, train: int, validation: int, run_dir: Path) -> dict:
    rows = rows_of(folder, seed, train, validation)
    test = sum(row["split"] == "test" for row in rows)
    hooks = Hooks(watch=lambda event, state, spend: print(".", end="", flush=True))
    if run_dir.exists():
        result = resume(run_dir, rows=rows, hooks=hooks)
    else:
        result = optimize(
            SEED_PROMPT,
            rows,
            answer=ANSWER,
            budget=calls + 2 * test,
            seed=seed,
            run_dir=run_dir,
            settings={"data": {"split": "split"}},
            hooks=hooks,
        )
    with Store.read(run_dir) as store:
        tested = fold(decode(event) for event in store.events()).tested
    assert isinstance(tested, Tested)
    print(f"\nseed {seed}: {result.verdict} {result.test}\n{result.prompt}\n", flush=True)
    return {
        "seed": seed,
        "prompt": result.prompt,
        "verdict": result.verdict,
        "n_test": result.test.n,
        "seed_test": result.test.baseline,
        "test": result.test.best,
        "difference": result.test.difference,
        "low": result.test.low,
        "high": result.test.high,
        "validation_used_for_selection": [result.baseline.validation, result.best.validation],
        "calls": result.spend.calls,
        "overshoot": max(0, result.spend.calls - calls - 2 * test),
        "seconds": round(result.spend.seconds, 1),
        "stopped": result.stopped,
        "accepted": [edit.changes for edit in result.edits],
        "rows": {
            id: [a, b] for (id, a, _), (_, b, _) in zip(tested.baseline, tested.best, strict=True)
        },
    }


def main() -> None:
    arg = argparse.ArgumentParser()
    arg.add_argument("--data", type=Path, required=True)
    arg.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arg.add_argument("--calls", type=int, default=2400)
    arg.add_argument("--train", type=int, default=200)
    arg.add_argument("--validation", type=int, default=200)
    arg.add_argument("--out", type=Path, default=RESULTS)
    arg.add_argument("--runs", type=Path, help="keeps the run directories of the seeds")
    args = arg.parse_args()
    kept = args.runs or Path(tempfile.mkdtemp())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    runs = []
    for seed in args.seeds:
        run_dir = kept / f"seed-{seed}"
        runs.append(play(args.data, seed, args.calls, args.train, args.validation, run_dir))
    tables = [run.pop("rows") for run in runs]
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    # One difference per test row, averaged over the seeds: the rows are the same for all seeds.
    differences = [sum(t[id][1] - t[id][0] for t in tables) / len(tables) for id in shared]
    mean, interval = sum(differences) / len(differences), student(differences)
    summary = {
        "task": "sst2",
        "command": "python benchmarks/sst2.py "
        + " ".join(sys.argv[1:]).replace(str(args.data), "SST2_FOLDER").replace(str(kept), "RUNS"),
        "commit": commit.stdout.strip(),
        "seed_prompt": SEED_PROMPT,
        "n_test": len(shared),
        "mean_seed_test": sum(r["seed_test"] for r in runs) / len(runs),
        "mean_test": sum(r["test"] for r in runs) / len(runs),
        "mean_difference": mean,
        "low": interval.low,
        "high": interval.high,
        "runs": runs,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps({k: v for k, v in summary.items() if k != "runs"}, indent=2))


if __name__ == "__main__":
    main()
