"""Repeat an experiment of the paper with any target and any denoiser, through remask's public API.

    python -m benchmarks.paper --fetch --data FOLDER [--task sst2]
    python -m benchmarks.paper --data FOLDER --task sst2 --target openai:gpt-4o-mini
        --denoiser local:FOLDER --calls 6000
    python -m benchmarks.paper --data FOLDER --task sst5 --own-words --steps 1,4,8,16,32
    python -m benchmarks.paper --task tau2_airline --target inspect:openai/gpt-4o-mini --calls 60000
    python -m benchmarks.paper --page

The data folder holds a folder for each of sst2, sst5, snli and mrpc, with train.jsonl,
validation.jsonl and test.jsonl; --fetch writes it from the Hugging Face hub. τ² needs no data.
--runs keeps the run directories: the same command continues a run that was cut, and returns a
finished one. The sealed test of a run is scored once, by remask. Prints the figures of the paper as
far as we could find them beside those of the run, and adds the run to benchmarks/results/paper.json.
A target `local:` or `builtin` of a τ² task is served on the loopback, with tools in its text.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.paper import page
from benchmarks.paper.data import CLASSIFICATION, SPLITS, fetch_task
from benchmarks.paper.experiment import (
    CALLS_PER_SAMPLE,
    ON_THIS_MACHINE,
    TAU,
    Experiment,
    describe_experiment,
    describe_result,
    format_estimate,
    name_model,
    read_settings,
    run_experiment,
    score_seed_prompt,
)
from benchmarks.paper.serve import SERVICE, LocalServer
from remask.api.build_models import APIS
from remask.errors import RemaskError
from remask.files import read_prompt
from remask.runs.result import RESULT

SIZES = {"train": 200, "validation": 300, "test": 1000}
LOCAL_TOKENS = 128  # of one answer of an agent on this machine


# -- the command line -----------------------------------------------------------------------------


def read_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = record.make_parser(__file__, __doc__)
    option = parser.add_argument
    option("--task", choices=(*CLASSIFICATION, *TAU), help="The experiment.")
    option(
        "--target",
        default="builtin",
        help="As for remask optimize; for τ² inspect:PROVIDER/MODEL. Default: builtin.",
    )
    option("--denoiser", default="builtin", help="As for remask optimize. Default: builtin.")
    option(
        "--calls",
        type=int,
        default=6000,
        help="Target calls of each run, the sealed test included. Default: 6000.",
    )
    option("--data", type=Path, help="The folder of the data sets.")
    option("--fetch", action="store_true", help="Download the data sets to --data, and run nothing.")
    option(
        "--runs",
        type=Path,
        default=Path("runs/paper"),
        help="The folder of the run directories. Default: runs/paper.",
    )
    option(
        "--own-words",
        action="store_true",
        help="A builtin or local: target answers in its own words, as an API does.",
    )
    option(
        "--steps",
        type=_read_steps,
        metavar="N,N,…",
        help="Denoising steps: one run for each number, with the same seed.",
    )
    option(
        "--seeds",
        type=int,
        nargs="+",
        default=[0],
        help="One run for each: other rows to search on, other draws. Default: 0.",
    )
    for split, rows in SIZES.items():
        option(
            f"--{split}",
            type=int,
            help=f"Rows to {'test' if split == 'test' else split}, at most; not for τ². Default: {rows}.",
        )
    option(
        "--demos",
        type=int,
        help="Train rows that a prompt may show, at most. 0: only edits of the text, as in the paper.",
    )
    option("--prompt", type=Path, help="A file with another seed prompt.")
    option(
        "--target-set", nargs="+", default=[], metavar="KEY=VALUE", help="Keys of [target] in remask.toml."
    )
    option(
        "--denoiser-set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="Keys of [denoiser] in remask.toml.",
    )
    option(
        "--customer",
        default="",
        metavar="PROVIDER/MODEL",
        help="τ²: the model that plays the customer. Default: that of the target.",
    )
    option(
        "--message-limit",
        type=int,
        help="τ²: exchanges of customer and agent in a sample, at most. Inspect's default: 100.",
    )
    option("--score", type=int, metavar="N", help="τ²: only score the seed prompt, on N samples.")
    option(
        "--calls-per-sample",
        type=int,
        default=CALLS_PER_SAMPLE,
        help="τ²: calls that a sample is expected to take, until some have run. Default: 20.",
    )
    option(
        "--port",
        type=int,
        default=8765,
        help="τ²: the port on which a local: target is served; a run that was cut needs the same.",
    )
    option("--out", type=Path, help="The results file. Default: benchmarks/results/paper.json.")
    record.add_page_option(parser)
    args = parser.parse_args(words)
    _check_arguments(parser, args)
    return args


def _read_steps(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers above 0, such as 1,4,8,16,32")
    return sorted({int(part) for part in parts})


def _check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a sentence and exit code 2 where arguments do not fit together."""
    sizes = {split: getattr(args, split) for split in SPLITS}
    tau = args.task in TAU
    problems = {
        "--fetch needs --data, the folder to write": args.fetch and args.data is None,
        "τ² tasks have no rows to fetch": args.fetch and tau,
        "name the experiment with --task": not (args.page or args.fetch or args.task),
        "--data is needed: the folder of the data sets; --fetch downloads them": (
            args.task in CLASSIFICATION and args.data is None and not args.page
        ),
        "--train, --validation and --test are not for τ²: its samples are split by their content": (
            tau and any(size is not None for size in sizes.values())
        ),
        "--own-words is not for τ²: an agent always answers in its own words": tau and args.own_words,
        "--score, --customer and --message-limit are for the τ² tasks": (
            not tau and (args.score is not None or args.customer or args.message_limit is not None)
        ),
        "--steps is for builtin and local: denoisers; an API has no number of denoising steps": (
            args.steps and args.denoiser.partition(":")[0] in APIS
        ),
        "--calls, --score and the numbers of rows must be at least 1": any(
            n is not None and n < 1
            for n in (args.calls, args.score, args.message_limit, args.calls_per_sample, *sizes.values())
        ),
    }  # fmt: skip
    for sentence in (sentence for sentence, wrong in problems.items() if wrong):
        parser.error(sentence)
    args.counts = None if tau else {split: sizes[split] or SIZES[split] for split in SPLITS}


def list_experiments(args: argparse.Namespace) -> Iterator[Experiment]:
    """Yield an experiment for each number of steps and each seed."""
    for steps in args.steps or [None]:
        for seed in args.seeds:
            yield Experiment(
                task=args.task, target=args.target, denoiser=args.denoiser, calls=args.calls, seed=seed,
                own_words=args.own_words, steps=steps, demos=args.demos, counts=args.counts,
                prompt=read_prompt(args.prompt) if args.prompt else "",
                target_settings=tuple(args.target_set), denoiser_settings=tuple(args.denoiser_set),
                customer=args.customer, message_limit=args.message_limit,
                calls_per_sample=args.calls_per_sample,
            )  # fmt: skip


# -- running --------------------------------------------------------------------------------------


@contextmanager
def serve_local(args: argparse.Namespace) -> Iterator[tuple[str, LocalServer | None]]:
    """Yield the target as a provider of Inspect and its server, for a τ² task with a local target."""
    if args.task not in TAU or args.target.partition(":")[0] not in ON_THIS_MACHINE:
        yield args.target, None
        return
    tokens = int(read_settings(args.target_set).get("max_tokens", LOCAL_TOKENS))
    os.environ.setdefault(f"{SERVICE.upper()}_API_KEY", "none")
    with LocalServer(args.target, tokens, args.port) as server:
        # Requests are answered one at a time, and each may take minutes on a processor.
        settings = {"concurrency": 1, "timeout": 3600, "max_tokens": tokens, "retries": 0}
        given = read_settings(args.target_set)
        args.target_set = [*args.target_set, *(f"{k}={v}" for k, v in settings.items() if k not in given)]
        args.target_set.append(f"base_url={server.url}")
        yield f"inspect:openai-api/{SERVICE}/{name_model(args.target).partition(':')[2] or 'builtin'}", server


def run_all(args: argparse.Namespace, about: dict[str, str]) -> None:
    """Run every experiment; print and record each as it ends."""
    with serve_local(args) as (target, server):
        for experiment in list_experiments(args):
            experiment = replace(experiment, target=target)
            if args.score is None:
                done = (args.runs / experiment.name / RESULT).exists()
                found = describe_result(experiment, run_experiment(experiment, args.data, args.runs))
            else:
                done, found = False, score_only(experiment, args.score, server)
            add_record(args.out or page.FIGURES, {**found, **about}, keep=done)
            print("\n".join(page.describe_run(found)), flush=True)


def score_only(experiment: Experiment, samples: int, server: LocalServer | None) -> dict[str, Any]:
    """Score the seed prompt on some samples; its figures."""
    since = time.monotonic()
    found = score_seed_prompt(experiment, samples)
    for line in (*found.warnings, *found.errors):
        print(f"note: {line}", file=sys.stderr)
    return {
        **describe_experiment(experiment),
        "spent": found.spend.calls,
        "seconds": round(time.monotonic() - since),
        "before": format_estimate(found.score),
        **({"tool_calls": server.calls} if server is not None else {}),
    }


def add_record(path: Path, found: dict[str, Any], keep: bool = False) -> None:
    """Add a record to the results, in place of an earlier one of the same run.

    keep: the run was finished before, so an earlier record of it names the commit that made it.
    """
    known = record.read_json(path)["runs"] if path.exists() else []

    def key(one: dict[str, Any]) -> tuple[Any, ...]:
        return one["name"], "after" in one, one["before"]["n"]

    if keep and any(key(one) == key(found) for one in known):
        return
    runs = [one for one in known if key(one) != key(found)] + [found]
    runs.sort(
        key=lambda one: (list(page.PAPER).index(one["task"]), one["target"], one["steps"] or 0, one["seed"])
    )
    record.write_json(path, {"runs": runs})


def fetch_all(args: argparse.Namespace) -> None:
    for name in (args.task,) if args.task else CLASSIFICATION:
        counts = fetch_task(name, args.data)
        print(
            f"{args.data / name}: " + ", ".join(f"{n:,} {split}" for split, n in counts.items()), flush=True
        )


def main(words: Sequence[str] | None = None) -> None:
    args = read_arguments(words)
    if args.page:
        print(page.write_page())
        return
    if args.fetch:
        fetch_all(args)
        return
    folders = [folder for folder in (args.data, args.runs, args.prompt, args.out) if folder is not None]
    named = [name_model(word) for word in (sys.argv[1:] if words is None else words)]
    about = record.describe_run(__file__, named, *folders)
    try:
        run_all(args, about)
    except RemaskError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except SystemExit as error:  # a sentence about files or settings
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("cut; the same command continues the run", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
