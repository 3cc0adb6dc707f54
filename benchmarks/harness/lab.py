"""What an optimiser is given, and all it is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness.meter import Counted
from remask.config import Config, make_config
from remask.ports import Reply, Target
from remask.prompt import Prompt
from remask.task.labelled import LabelledTask
from remask.trace import Chat, Example, mean_score
from tasks import BenchTask


@dataclass(slots=True)
class Lab:
    """One run of one optimiser: rows to search on behind a counted target, and a notebook.

    The incumbent is what the optimiser would answer if it were stopped now. The curve is read
    from the notebook, so an optimiser reports each new incumbent as soon as it has it.
    """

    bench: BenchTask
    task: LabelledTask  # train and validation rows alone
    counted: Counted
    trained: tuple[tuple[str, str], ...]  # (user message, right answer) of the train rows
    seed: int
    dlm: str = "embedded"
    incumbents: list[tuple[int, str]] = field(default_factory=list)  # (calls spent, prompt)

    @property
    def start(self) -> Prompt:
        return Prompt(self.bench.seed_prompt)

    @property
    def cap(self) -> int:
        return self.counted.cap

    @property
    def config(self) -> Config:
        """remask's own settings for this task; whatever is not named is the default."""
        return make_config(
            {
                "prompt": self.bench.seed_prompt,
                "seed": self.seed,
                "metric": {"answer": self.bench.answer, "labels": self.bench.labels},
                "dlm": {"model": self.dlm},
                "budget": {"calls": self.cap},
            },
            "benchmark",
        )

    def report(self, prompt: str) -> None:
        self.incumbents.append((self.counted.spent, prompt))

    def validated(self, prompt: str) -> float:
        """The mean over all validation rows. Raises BudgetSpent."""
        return mean_score(self.task.evaluate(Prompt(prompt), self.task.ids("validation")))

    def at(self, calls: int) -> str:
        """The incumbent when `calls` had been spent."""
        known = [prompt for spent, prompt in self.incumbents if spent <= calls]
        return known[-1] if known else self.bench.seed_prompt


Optimiser = Callable[[Lab], None]  # may end by BudgetSpent


class Answering(Target):
    """A target that answers only, whatever else it can."""

    def __init__(self, target: Target) -> None:
        self.identity, self.target = target.identity, target

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        return self.target.respond(chats, repeat)


def make_task(bench: BenchTask, examples: Sequence[Example], target: Target) -> LabelledTask:
    """The benchmark's one way to score: forced choice for labels unless the target is free to
    answer, else the task's metric."""
    asked = Answering(target) if bench.free else target
    return LabelledTask(examples, asked, bench.metric, labels=bench.labels, answer=bench.answer)


def open_lab(
    bench: BenchTask,
    examples: Sequence[Example],
    target: Target,
    cap: int,
    seed: int,
    dlm: str = "embedded",
) -> Lab:
    counted = Counted(target, cap)
    trained = tuple((e.input, e.expected or "") for e in examples if e.split == "train")
    return Lab(bench, make_task(bench, examples, counted), counted, trained, seed, dlm)
