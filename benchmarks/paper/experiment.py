"""One run of an experiment through remask's public API, and what is recorded of it."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import remask
from benchmarks.paper.data import CLASSIFICATION, SPLITS, choose_task, draw_rows
from benchmarks.record import write_whole
from remask.ids import content_id
from remask.models.function import is_function_file
from remask.runs.database import FILE
from remask.runs.outcomes import read_row_file
from remask.stats import Estimate, estimate

TAU = ("tau2_airline", "tau2_retail")
ON_THIS_MACHINE = ("builtin", "local")  # targets that choose a label unless they are told not to
CALLS_PER_SAMPLE = 20  # of τ², agent and customer, until some samples have run


@dataclass(frozen=True, slots=True)
class Experiment:
    """All that decides the result of one run."""

    task: str
    target: str
    denoiser: str
    calls: int
    seed: int
    own_words: bool = False  # a target on this machine writes its answer, as an API does
    steps: int | None = None  # denoising steps; None: the denoiser's default
    demos: int | None = None  # train rows that a prompt may show, at most; None: remask's default
    counts: Mapping[str, int] | None = None  # rows by split; None for τ², whose samples are split by hash
    prompt: str = ""  # "": the task's own
    target_settings: tuple[str, ...] = ()  # KEY=VALUE
    denoiser_settings: tuple[str, ...] = ()
    customer: str = ""  # of τ²: the model that plays the customer; "": that of the target
    message_limit: int | None = None  # of τ²: exchanges of customer and agent in a sample
    calls_per_sample: int = CALLS_PER_SAMPLE

    @property
    def name(self) -> str:
        """The name of its run directory. The folder of a model is not part of it."""
        named = replace(self, target=name_model(self.target), denoiser=name_model(self.denoiser))
        return f"{self.task}-seed{self.seed}-{content_id('experiment', asdict(named))[:10]}"


def name_model(model: str) -> str:
    """The name of a model in records: that of a local file without its folder.

    >>> name_model("local:/models/qwen.gguf"), name_model("inspect:openai/gpt-4o-mini")
    ('local:qwen.gguf', 'inspect:openai/gpt-4o-mini')
    """
    if is_function_file(model):  # /folder/FILE.py:FUNCTION
        return Path(model).name
    kind, colon, place = model.partition(":")
    return f"{kind}:{Path(place).name}" if colon and kind in ("local", "builtin") else model


def run_experiment(experiment: Experiment, data: Path, runs: Path) -> remask.Result:
    """Start the run in `runs`, continue it where it was cut, or return the result of a finished one.

    Runs lie side by side, so remask knows which test rows earlier runs have used, and holds later
    verdicts to a stricter level. Raises RemaskError and SystemExit.
    """
    folder = runs / experiment.name
    if (folder / FILE).exists():
        return remask.resume(folder)
    denoiser = remask.Denoiser(experiment.denoiser, **_read_denoiser(experiment))
    demos = {} if experiment.demos is None else {"demos": experiment.demos}
    common: dict[str, Any] = {
        "search": remask.Search(**demos),
        "denoiser": denoiser, "max_calls": experiment.calls, "seed": experiment.seed, "run_dir": folder,
    }  # fmt: skip
    if experiment.task in TAU:
        task = make_inspect_task(experiment)
        prompt = experiment.prompt or remask.system_prompt_of(task.name)
        return remask.optimize(prompt, task=task, target=make_target(experiment), **common)
    bench = choose_task(experiment.task, answers_in_words(experiment))
    assert experiment.counts is not None
    places = {}
    for split, rows in draw_rows(bench, data, experiment.counts, experiment.seed).items():
        places[split] = runs / "rows" / experiment.name / f"{split}.jsonl"
        write_whole(places[split], "\n".join(json.dumps(dict(row), ensure_ascii=False) for row in rows))
    return remask.optimize(
        experiment.prompt or bench.seed_prompt,
        remask.Dataset(**places, input=bench.input),
        metric=remask.Label(answer=bench.answer, labels=bench.labels),
        target=make_target(experiment),
        **common,
    )


def answers_in_words(experiment: Experiment) -> bool:
    """Whether the target writes its answers: always behind an API, and on this machine if asked."""
    return experiment.own_words or experiment.target.partition(":")[0] not in ON_THIS_MACHINE


def make_target(experiment: Experiment) -> remask.Target:
    """The target. Raises ConfigError for a setting that it does not have."""
    settings = read_settings(experiment.target_settings)
    local = experiment.target.partition(":")[0] in ON_THIS_MACHINE
    if local and experiment.own_words:
        bench = choose_task(experiment.task, own_words=True)
        settings = {"choose": False, "max_tokens": bench.max_tokens, **settings}
    return remask.Target(experiment.target, **settings)


def _read_denoiser(experiment: Experiment) -> dict[str, Any]:
    steps = {} if experiment.steps is None else {"steps": experiment.steps}
    return {**read_settings(experiment.denoiser_settings), **steps}


def make_inspect_task(experiment: Experiment) -> remask.InspectTask:
    """A task of τ²-bench. The customer is played by the target's model where none is named."""
    customer = experiment.customer or experiment.target.partition(":")[2]
    args = {} if experiment.message_limit is None else {"message_limit": experiment.message_limit}
    return remask.InspectTask(
        f"inspect_evals/{experiment.task}", args=args, roles={"user": customer},
        calls_per_sample=experiment.calls_per_sample,
    )  # fmt: skip


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read KEY=VALUE as a line of remask.toml; what is no value of TOML is a text.

    >>> read_settings(["max_tokens=64", "base_url=http://127.0.0.1:8000/v1", "send_seed=false"])
    {'max_tokens': 64, 'base_url': 'http://127.0.0.1:8000/v1', 'send_seed': False}

    Raises SystemExit where there is no equals sign.
    """
    found = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise SystemExit(f"{setting!r} is no setting; write KEY=VALUE, such as max_tokens=64")
        try:
            found[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = value.strip()
    return found


def score_seed_prompt(experiment: Experiment, samples: int) -> remask.Evaluation:
    """Score the seed prompt on the first samples of a task of τ², without a search."""
    task = make_inspect_task(experiment)
    total = len(_list_samples(task))
    share = min(samples, total) / total
    return remask.evaluate(
        experiment.prompt or remask.system_prompt_of(task.name),
        remask.Dataset(fractions=(share, 0.0, 1 - share)),
        task=task,
        target=make_target(experiment),
        split="train",
    )


def _list_samples(task: remask.InspectTask) -> Sequence[object]:
    from remask.tasks.inspect.setup import load_task

    return load_task(task.name, task.args).dataset.examples


# -- the record -----------------------------------------------------------------------------------


def describe_result(experiment: Experiment, result: remask.Result) -> dict[str, Any]:
    """Return the figures of a finished run. No text of a row or of a prompt is among them."""
    assert result.test is not None  # an optimisation always has a test
    test, rows = result.test, [row for row in read_row_file(Path(result.run_dir)) if row["split"] == "test"]
    return {
        **describe_experiment(experiment),
        "spent": result.spend.calls,
        "seconds": round(result.spend.seconds),
        "candidates": result.candidates,
        "edits": len(result.edits),
        "examples": result.quoted_rows,
        "unparsed": [sum(row[end]["unparsed"] for row in rows) for end in ("before", "after")],
        "before": _estimate(row["before"]["score"] for row in rows),
        "after": _estimate(row["after"]["score"] for row in rows),
        "difference": test.difference,
        "low": test.low,
        "high": test.high,
        "level": test.level,
        "verdict": result.verdict,
        "changed": result.best.prompt != result.baseline.prompt,
    }


def describe_experiment(experiment: Experiment) -> dict[str, Any]:
    """Return what decides a run, without folders, addresses and texts."""
    counts = experiment.counts or {}
    return {
        "name": experiment.name,
        "task": experiment.task,
        "target": name_model(experiment.target),
        "denoiser": name_model(experiment.denoiser),
        "own_words": answers_in_words(experiment),
        "own_prompt": bool(experiment.prompt),
        "steps": experiment.steps,
        "demos": experiment.demos,
        "seed": experiment.seed,
        "calls": experiment.calls,
        "message_limit": experiment.message_limit,
        "rows": [counts[split] for split in SPLITS] if experiment.task in CLASSIFICATION else [],
    }


def _estimate(scores: Any) -> dict[str, Any]:
    return format_estimate(estimate([score for score in scores if score is not None]))


def format_estimate(found: Estimate) -> dict[str, Any]:
    return {"n": found.n, "mean": found.mean, "low": found.low, "high": found.high}
