"""What an optimiser gets, and nothing else: rows, a target that counts calls, and a notebook.

Train and validation rows come from the training file and differ from seed to seed; the withheld
rows come from the validation file and the test rows from the test file, the same for all seeds and
optimisers, so that rows can be paired. How many they are is part of the protocol.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from benchmarks.tasks import BenchTask, Row
from remask.config import Config, make_config
from remask.data.dataset import Columns, load
from remask.ids import content_id, rng_for
from remask.ports import Reply, TargetModel
from remask.prompt import Prompt
from remask.runs.budget import Limits
from remask.runs.ledger import Ledger
from remask.runs.store import MemoryStore
from remask.tasks.labelled import LabelledTask
from remask.types import Chat, Example, Split, mean_score

BUILTIN, LOCAL = "builtin", "local:"


@dataclass(frozen=True, slots=True)
class Protocol:
    """Settings that must be equal for two cells to be compared; fixed before the grid is run."""

    calls: int = 800
    checkpoints: tuple[int, ...] = (100, 200, 400, 800)
    train: int = 50  # rows to search on
    validation: int = 150
    withheld: int = 100  # rows for curves
    test: int = 300  # sealed rows at most; a smaller file is used whole
    denoiser: str = "builtin"  # of the optimisers that denoise
    target: str = BUILTIN  # or local: and the last part of its place, see name_target

    @property
    def upto(self) -> tuple[int, ...]:
        """The calls at which the curve is read; below half of them a smaller budget has its own run."""
        return (*(c for c in self.checkpoints if self.calls <= 2 * c < 2 * self.calls), self.calls)


# -- rows -----------------------------------------------------------------------------------------


def load_search_rows(task: BenchTask, data: Path, seed: int, sizes: Protocol) -> tuple[Example, ...]:
    """Rows that an optimiser may see, with the splits train and validation."""
    n = sizes.train + sizes.validation
    rows = _draw(_read_rows(task, data, "train", n), n, seed, task.name, "search")
    return _make_examples(task, rows[: sizes.train], "train") + _make_examples(
        task, rows[sizes.train :], "validation"
    )


def load_withheld_rows(task: BenchTask, data: Path, sizes: Protocol) -> tuple[Example, ...]:
    """Rows for curves, which no search sees."""
    rows = _read_rows(task, data, "validation", sizes.withheld)
    drawn = _draw(rows, sizes.withheld, 0, task.name, "withheld")
    return _make_examples(task, drawn, "validation")


def load_test_rows(task: BenchTask, data: Path, sizes: Protocol) -> tuple[Example, ...]:
    """The sealed rows; read only when a finished search is scored. All of a smaller file."""
    rows = _read_rows(task, data, "test", 1)
    return _make_examples(task, _draw(rows, sizes.test, 0, task.name, "test"), "test")


def check_rows(task: BenchTask, data: Path, sizes: Protocol) -> None:
    """Raise SystemExit where a file has too few rows for the grid. The test file is not opened."""
    load_search_rows(task, data, 0, sizes)
    load_withheld_rows(task, data, sizes)


def _read_rows(task: BenchTask, data: Path, file: str, n: int) -> list[Row]:
    """The different rows of a file. Raises SystemExit where there are fewer than `n`."""
    rows = list({task.input.format(**row): row for row in task.read(data, file)}.values())
    if len(rows) < n:
        raise SystemExit(
            f"{task.name}: the {file} file has {len(rows)} different rows, but the protocol needs "
            f"{n}; give more rows, or ask for fewer (--train, --validation, --withheld)"
        )
    return rows


def _draw(rows: Sequence[Row], n: int, seed: int, *path: str) -> list[Row]:
    return [rows[i] for i in rng_for(seed, "bench", *path).permutation(len(rows))[:n]]


def _make_examples(task: BenchTask, rows: Sequence[Row], split: Split) -> tuple[Example, ...]:
    marked = [{**row, "split": split} for row in rows]
    return tuple(load(marked, Columns(task.input, "label", "split")).examples)


# -- the target -----------------------------------------------------------------------------------


def load_target(bench: BenchTask, target: str = BUILTIN) -> TargetModel:
    """The frozen target of the whole grid, on one thread. Raises ConfigError and BackendError.

    target: "builtin", or "local:PLACE", see docs/how-to/local-model.md. A local model computes in
    float32 on the processor, so that any machine can continue its grid.
    """
    import torch

    from remask.api.arguments import Target
    from remask.api.load_target import load_target as load
    from remask.models.backbone.builtin_weights import load_base
    from remask.models.builtin import BuiltinTarget

    torch.set_num_threads(1)
    if target == BUILTIN:
        return BuiltinTarget(load_base(), max_tokens=bench.max_tokens)
    return load(Target(target, max_tokens=bench.max_tokens, device="cpu", dtype="float32"))


def check_target(target: str) -> None:
    """Raise SystemExit where a local target cannot be read. The weights are not loaded."""
    from remask.errors import RemaskError
    from remask.models.backbone.checkpoint import read_config

    try:
        if target != BUILTIN:
            read_config(target.removeprefix(LOCAL))
    except RemaskError as error:
        raise SystemExit(str(error)) from None


def name_target(target: str) -> str:
    """The name of a target in records: a place without its folder, which only this machine has.

    >>> name_target("local:/models/qwen2.5-0.5b-instruct-q4_k_m.gguf"), name_target("builtin")
    ('local:qwen2.5-0.5b-instruct-q4_k_m.gguf', 'builtin')
    """
    kind, colon, place = target.partition(":")
    return f"{kind}{colon}{PurePath(place).name}"


class Counted(TargetModel):
    """A target that raises BudgetSpent instead of passing `cap` calls.

    No optimiser holds the target itself, so none can avoid the cap. An equal chat within one run is
    answered from memory and costs nothing, for every optimiser alike. The memory belongs to one
    run, so no answer to another optimiser makes a call free.
    """

    def __init__(self, target: TargetModel, cap: int) -> None:
        self.identity, self.chooses, self.cap = target.identity, target.chooses, cap
        self._ledger = Ledger(MemoryStore(), Limits(calls=cap))
        # Only its bound methods: no attribute leads to the target.
        self._choose, self._respond = target.choose, target.respond

    @property
    def spent(self) -> int:
        return self._ledger.store.get_spend().calls

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        return self._counted(chats, ("respond", repeat), lambda new: self._respond(new, repeat))

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Reply]:
        return self._counted(chats, ("choose", *options), lambda new: self._choose(new, options))

    def _counted(
        self, chats: Sequence[Chat], kind: tuple[str | int, ...], ask: Callable[[list[Chat]], list[Reply]]
    ) -> list[Reply]:
        keys = [content_id("call", *kind, [[m.role, m.content] for m in chat]) for chat in chats]
        replies = self._ledger.ask(dict(zip(keys, chats, strict=True)), ask)
        return [replies[key] for key in keys]


class Answering(TargetModel):
    """A target that answers in its own words, even where it could choose a label."""

    def __init__(self, target: TargetModel) -> None:
        self.identity, self.target = target.identity, target

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        return self.target.respond(chats, repeat)


# -- a run of an optimiser ------------------------------------------------------------------------


@dataclass(slots=True)
class Lab:
    """One run of one optimiser: rows to search on behind a counted target, and a notebook.

    The incumbent is the prompt that the optimiser would return if it were stopped now. The curve is
    read from the notebook, so an optimiser reports each new incumbent at once.
    """

    bench: BenchTask
    task: LabelledTask  # train and validation rows only
    counted: Counted
    trained: tuple[tuple[str, str], ...]  # (user message, right answer) of the train rows
    seed: int
    denoiser: str = "builtin"
    inputs: Mapping[str, str] = field(default_factory=dict)  # id of a row -> user message
    incumbents: list[tuple[int, str]] = field(default_factory=list)  # (calls spent, prompt)

    @property
    def start(self) -> Prompt:
        return Prompt(self.bench.seed_prompt)

    @property
    def cap(self) -> int:
        return self.counted.cap

    @property
    def config(self) -> Config:
        """The settings of remask for this task; the others have their defaults."""
        return make_config(
            {
                "prompt": self.bench.seed_prompt,
                "seed": self.seed,
                "metric": {"answer": self.bench.answer, "labels": self.bench.labels},
                "denoiser": {"model": self.denoiser},
                "budget": {"calls": self.cap},
            },
            "benchmark",
        )

    def report(self, prompt: str) -> None:
        self.incumbents.append((self.counted.spent, prompt))

    def validate(self, prompt: str) -> float:
        """The mean over all validation rows. Raises BudgetSpent."""
        return mean_score(self.task.evaluate(Prompt(prompt), self.task.ids("validation")))

    def find_incumbent(self, calls: int) -> str:
        """The incumbent when `calls` had been spent."""
        known = [prompt for spent, prompt in self.incumbents if spent <= calls]
        return known[-1] if known else self.bench.seed_prompt


Optimiser = Callable[[Lab], None]  # may end by BudgetSpent


def make_task(bench: BenchTask, examples: Sequence[Example], target: TargetModel) -> LabelledTask:
    """Scoring as the benchmark does it: a forced choice between labels, unless the task is free or
    has its own metric."""
    asked = Answering(target) if bench.free else target
    return LabelledTask(examples, asked, bench.metric, labels=bench.labels, answer=bench.answer)


def open_lab(
    bench: BenchTask,
    examples: Sequence[Example],
    target: TargetModel,
    cap: int,
    seed: int,
    denoiser: str = "builtin",
) -> Lab:
    counted = Counted(target, cap)
    trained = tuple((e.input, e.expected or "") for e in examples if e.split == "train")
    inputs = {e.id: e.input for e in examples}
    return Lab(bench, make_task(bench, examples, counted), counted, trained, seed, denoiser, inputs)
