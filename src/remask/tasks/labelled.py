"""Rows with a right answer: how a prompt does on them, as Outcomes that carry their Traces.

Knows examples, one target and one metric, and how prompt and row become a chat. Knows nothing of
search, budgets or denoisers: a metered target raises BudgetSpent through here. A call that failed
and a metric that could not say give an Outcome without a score, never a 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from remask.data.placeholders import fill
from remask.errors import ConfigError
from remask.ports import Metric, Reply, TargetModel
from remask.prompt import Prompt
from remask.tasks.metrics import METRICS, Grade, Grader, canonical, grader, parse_label
from remask.types import Chat, Example, Feedback, Message, Outcome, Split, Trace

# The soft score of a choice is the probability of the right option, sharpened. Measured on SST-2
# (38 candidates, 160 train rows): the mean over 16 rows correlates with accuracy on the other rows
# by 0.53 as it is, 0.67 sharpened by 3, and 0.64 for right or wrong (docs/log.md).
SHARPNESS = 3.0
GOOD = 0.75  # a response that scores at least so is the right one, where none is given


class LabelledTask:
    """Implements ports.Task over examples.

    The chat of a row is the prompt as system message (none where the prompt is blank) and the
    example's input as user message; with role "user" the prompt alone, as the user's message, in
    which the row's columns stand. {name}, {{name}} and ${name} in the prompt are filled from
    Example.row; the user message stays the same even if the prompt shows the input as well.

    metric "label": a target that can choose picks the most probable of the labels, each put
    into the `answer` template; other targets answer freely and the first allowed label counts.
    `repeats` calls of every row are averaged, and a row with a failed repeat is failed; choosing
    is deterministic and done once.

    Raises ConfigError where rows, labels, metric and answer do not fit together.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        target: TargetModel,
        metric: str | Metric | Grader = "label",
        *,
        labels: Sequence[str] = (),
        answer: str = "{label}",
        repeats: int = 1,
        role: Literal["system", "user"] = "system",
    ) -> None:
        """`labels`: those allowed by metric "label"; empty: the expected answers that occur."""
        if repeats < 1:
            raise ConfigError(f"repeats is {repeats}; it must be at least 1")
        if "{label}" not in answer:
            raise ConfigError(f"answer {answer!r} must contain {{label}}")
        if isinstance(metric, str) and metric in METRICS:
            _check_expected(examples, metric)
        self._by_label = metric == "label"
        self._labels: tuple[str, ...] = ()
        if self._by_label:
            found = sorted({e.expected for e in examples if e.expected})
            self._labels = tuple(labels or found)
            _check_labels(examples, self._labels)
        self._grader = grader(metric, self._labels)
        self._target = target
        self._answer = answer
        self._repeats = repeats
        self._role = role
        self._examples = {e.id: e for e in examples}

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels allowed by metric "label"; empty for other metrics."""
        return self._labels

    def ids(self, split: Split) -> tuple[str, ...]:
        """The rows of a split, in the order of the data."""
        return tuple(e.id for e in self._examples.values() if e.split == split)

    def evaluate(self, prompt: Prompt, ids: Sequence[str]) -> list[Outcome]:
        """One Outcome per id, in order. All rows go to the target in one call per repeat.

        Raises KeyError for an unknown id, and BudgetSpent and TargetRefused of the target.
        """
        examples = [self._examples[id] for id in ids]
        chats = [chat(prompt, example, self._role) for example in examples]
        if self._by_label and self._target.chooses:
            return self._chosen(examples, chats)
        rounds = [self._answered(examples, chats, repeat) for repeat in range(self._repeats)]
        return [
            self._outcome(example, tries) for example, *tries in zip(examples, *rounds, strict=True)
        ]

    def _chosen(self, examples: Sequence[Example], chats: Sequence[Chat]) -> list[Outcome]:
        options = [fill_answer(self._answer, label) for label in self._labels]
        replies = self._target.choose(chats, options)
        return [
            self._choice(example, reply, options)
            for example, reply in zip(examples, replies, strict=True)
        ]

    def _choice(self, example: Example, reply: Reply, options: Sequence[str]) -> Outcome:
        error = reply.error
        if not error and not _usable(reply.logps):
            error = "the target gave no finite log-probability for the options"
        if error:
            return Outcome(example.id, "failed", error=error)
        right = options.index(self._desired(example) or "")
        score = float(options.index(reply.text) == right)
        top = max(reply.logps)
        weights = [math.exp(SHARPNESS * (logp - top)) for logp in reply.logps]
        trace = self._trace(example, reply.text, Grade(score))
        return Outcome(example.id, "scored", score, weights[right] / sum(weights), trace=trace)

    def _answered(
        self, examples: Sequence[Example], chats: Sequence[Chat], repeat: int
    ) -> list["_Try"]:
        """One repeat of all rows; only rows with a reply are graded."""
        replies = self._target.respond(chats, repeat=repeat)
        given = [(e, r.text) for e, r in zip(examples, replies, strict=True) if not r.error]
        grades = iter(self._grader.grade([e for e, _ in given], [text for _, text in given]))
        return [
            _Try(reply.text, Grade(error=reply.error) if reply.error else next(grades))
            for reply in replies
        ]

    def _outcome(self, example: Example, tries: Sequence["_Try"]) -> Outcome:
        errors = [t.grade.error for t in tries if t.grade.error]
        if errors:
            return Outcome(example.id, "failed", error=errors[0])
        score = sum(t.grade.score for t in tries) / len(tries)
        worst = min(tries, key=lambda t: t.grade.score)  # the first of these: what to learn from
        grade = Grade(score, worst.grade.feedback)
        return Outcome(
            example.id,
            "scored",
            score,
            ranking_score=score,
            unparsed=any(t.grade.unparsed for t in tries),
            trace=self._trace(example, worst.response, grade),
        )

    def _desired(self, example: Example) -> str | None:
        """The right answer, said as the target would say it."""
        if not self._by_label or example.expected is None:
            return self._grader.desired(example)
        return fill_answer(self._answer, canonical(example.expected, self._labels) or "")

    def _trace(self, example: Example, response: str, grade: Grade) -> Trace:
        desired = self._desired(example)
        if desired is None and grade.score >= GOOD:
            desired = response
        return Trace(
            id=example.id,  # one trace of a row is read at a time, and its query is shown later
            query=example.input,
            response=response,
            desired=desired,
            feedback=(Feedback("comment", grade.feedback),) if grade.feedback else (),
            score=grade.score,
        )


@dataclass(frozen=True, slots=True)
class _Try:
    """One repeat of one row."""

    response: str
    grade: Grade


def chat(prompt: Prompt, example: Example, role: Literal["system", "user"] = "system") -> Chat:
    """What the target reads: the prompt with its variables filled, then the user's message; with
    `role` "user" the prompt alone."""
    system = fill(prompt.text, example.row)
    if role == "user":
        return (Message("user", system),)
    user = Message("user", example.input)
    return (Message("system", system), user) if system.strip() else (user,)


def labels_never_predicted(
    outcomes: Sequence[Outcome], labels: Sequence[str], answer: str = "{label}"
) -> tuple[str, ...]:
    """The labels that no response names: a sign of a wrong label or of a target that cannot."""
    whole = {fill_answer(answer, label): label for label in labels}
    responses = {o.trace.response for o in outcomes if o.trace is not None}
    emitted = {whole.get(text) or parse_label(text, labels) for text in responses}
    return tuple(label for label in labels if label not in emitted)


def fill_answer(answer: str, label: str) -> str:
    """The label as the target would say it. Nothing but {label} is replaced."""
    return answer.replace("{label}", label)


def _usable(logps: Sequence[float]) -> bool:
    return bool(logps) and not any(map(math.isnan, logps)) and math.isfinite(max(logps))


def _check_expected(examples: Sequence[Example], metric: str) -> None:
    for example in examples:
        if example.expected is None:
            raise ConfigError(
                f"metric {metric!r} needs the right answers; name their column with `expected`"
            )


def _check_labels(examples: Sequence[Example], labels: Sequence[str]) -> None:
    for i, label in enumerate(labels):
        if not label.strip():
            raise ConfigError("a label is empty; remove it")
        if twin := canonical(label, labels[:i]):
            raise ConfigError(
                f"the labels {twin!r} and {label!r} differ only in case or spacing; use one"
            )
    seen = {canonical(e.expected or "", labels): e.expected for e in examples}
    if None in seen:
        raise ConfigError(
            f"the data holds the answer {seen[None]!r}, which is no allowed label; "
            f"allowed: {', '.join(labels)}"
        )
    if len(seen) < 2:
        raise ConfigError(
            f"all {len(examples)} rows have the same right answer {next(iter(seen), None)!r}; "
            "give rows of at least two labels"
        )
