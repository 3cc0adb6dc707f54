"""Shorten real long prompts on a real task, with the built-in models.

    python -m benchmarks.shorten --data FOLDER [--size small] [--prompts NAME …] [--runs FOLDER]

FOLDER holds corpus/sys_*.jsonl, public system prompts with source and licence, of which only those
under Apache-2.0 and MIT are taken, and sst2/. Each prompt is the system message of a task that it
speaks of: the target is told a comment on a film and chooses whether it is positive or negative.
The search reads 800 of the train rows; the sealed test has the test and the validation rows.

Each prompt is a run in --runs, which goes on where it was stopped: call the command again. The
figures go to benchmarks/results/shorten.json. No prompt is stored there.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import remask
from benchmarks.record import RESULTS, describe_run, make_parser, write_json

FIGURES = RESULTS / "shorten.json"
PROMPTS = {  # file of the corpus, end of the source
    "analyze_comments": ("sys_fabric", "patterns/analyze_comments/system.md"),
    "analyze_product_feedback": ("sys_fabric", "patterns/analyze_product_feedback/system.md"),
    "feedback_synthesizer": ("sys_msitarzewski", "product/product-feedback-synthesizer.md"),
}
LICENCES = ("Apache-2.0", "MIT")
TRAIN, VALIDATION = 200, 600
SIZES = {"small": (200, 900), "full": (None, 3000)}  # sealed rows (None: all), calls of the search
WITHIN = 2.0  # points of score
ANSWER = "This comment is {label}."


def read_prompt(data: Path, name: str) -> dict[str, str]:
    """Return text, source and licence of a prompt. SystemExit where it is not there or not free."""
    file, end = PROMPTS[name]
    for line in (data / "corpus" / f"{file}.jsonl").read_text("utf-8").splitlines():
        found = json.loads(line)
        if found["source"].endswith(end):
            if found["license"] not in LICENCES:
                raise SystemExit(f"{found['source']} is under {found['license']}, not {LICENCES}")
            return {"text": found["prompt"], "source": found["source"], "license": found["license"]}
    raise SystemExit(f"{file}.jsonl has no prompt that ends with {end}")


def read_rows(data: Path, test: int | None) -> dict[str, list[dict[str, str]]]:
    """Return the rows by split. The sealed rows come from files that the search never reads."""

    def read(name: str) -> list[dict[str, str]]:
        lines = (data / "sst2" / f"{name}.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    known = read("train")[: TRAIN + VALIDATION]
    sealed = [*read("test"), *read("validation")][:test]
    return {"train": known[:TRAIN], "validation": known[TRAIN:], "test": sealed}


def play(name: str, data: Path, size: str, runs: Path, seed: int) -> dict[str, Any]:
    """Run or go on with one prompt; return its figures."""
    found, (test, calls) = read_prompt(data, name), SIZES[size]
    rows = read_rows(data, test)
    folder = runs / f"{name}-{size}-{seed}"
    if (folder / "run.db").exists():
        result = remask.resume(folder, data=rows)
    else:
        result = remask.shorten(
            found["text"],
            rows,
            within=WITHIN,
            metric=remask.Label(answer=ANSWER),
            max_calls=calls + 2 * len(rows["test"]),
            seed=seed,
            run_dir=folder,
        )
    assert result.test is not None
    return {
        **{"prompt": name, "size": size, "seed": seed},
        **{key: found[key] for key in ("source", "license")},
        "words": [len(text.split()) for text in (result.baseline.prompt, result.prompt)],
        "tokens": [result.baseline.tokens, result.best.tokens],
        "shorter": round(1 - result.best.tokens / result.baseline.tokens, 4),
        "rows": result.test.n,
        **{key: round(getattr(result.test, key), 4) for key in ("baseline", "best", "difference")},
        **{key: round(getattr(result.test, key), 4) for key in ("low", "high", "level")},
        "differing": result.test.differing,
        "verdict": result.verdict,
        "accepted": len(result.edits),
        "calls": result.spend.calls,
        "minutes": round(result.spend.seconds / 60, 1),
    }


def read_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    option = parser.add_argument
    option("--data", type=Path, required=True, help="The folder with corpus/ and sst2/.")
    option("--size", choices=tuple(SIZES), default="full", help="Rows and calls.")
    option("--prompts", nargs="+", choices=tuple(PROMPTS), default=tuple(PROMPTS), help="Which prompts.")
    option("--runs", type=Path, default=Path("shorten-runs"), help="Folder of the runs, to go on with.")
    option("--seed", type=int, default=0, help="Seed of the search.")
    option("--out", type=Path, default=FIGURES, help="The results file.")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    args = read_arguments(words)
    about = describe_run(__file__, words, args.data, args.runs)
    known: list[dict[str, Any]] = json.loads(args.out.read_text("utf-8")) if args.out.exists() else []
    for name in args.prompts:
        found = play(name, args.data, args.size, args.runs, args.seed) | about
        print(found, flush=True)
        same = ("prompt", "size", "seed")
        known = [one for one in known if any(one[key] != found[key] for key in same)] + [found]
        write_json(args.out, known)


if __name__ == "__main__":
    main()
