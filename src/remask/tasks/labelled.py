"""Score a prompt on rows: ask the target and grade its responses.

A failed call and a metric that gives no score both give an Outcome without a score, never a 0. A
metered target may raise BudgetSpent, which passes through.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from remask.data.placeholders import fill
from remask.errors import ConfigError
from remask.ports import Metric, Reply, TargetModel
from remask.prompt import Prompt
from remask.tasks.compare_answers import collect_labels
from remask.tasks.measures import VALUES, Measures, Values, average_values
from remask.tasks.metrics import METRICS, Grade, Grader, make_grader
from remask.tasks.parse_label import match_label, normalise_label, parse_label
from remask.tasks.run_metric import METRIC_TIMEOUT
from remask.types import Chat, Example, Feedback, Message, Outcome, Role, Split, Trace

# The ranking score of a choice is the probability of the right option, with the log-probabilities
# multiplied by this. On SST-2 (38 candidates, 160 train rows), the mean over 16 rows correlates
# with the accuracy on the other rows by 0.53 for a factor of 1, by 0.67 for a factor of 3, and by
# 0.64 for right or wrong (docs/log.md).
SHARPNESS = 3.0
TURNS = ("system", "user", "assistant")  # components that are messages; also NAME/2 and so on
MIN_GOOD_SCORE = 0.75  # from which a response counts as the right one, where the row has none


class LabelledTask:
    """Implements ports.Task over examples.

    The chat of a row is the prompt as system message (none where the prompt is blank) and the input
    as user message. With role "user" it is only the prompt, as user message. {name}, {{name}} and
    ${name} in the prompt are filled from Example.row.

    With the metric "label", a target that can choose picks the most probable label, each filled
    into the `answer` template. Other targets answer freely, and the label that they name counts.
    The scores of `repeats` calls per row are averaged, and a row with a failed call has failed.
    Choosing is deterministic, so it is done once.

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
        timeout: float | None = METRIC_TIMEOUT,
        measures: Measures | None = None,
    ) -> None:
        """Check the arguments. `labels`: allowed by the metric "label"; default: as in the rows.

        `timeout`: seconds that a function as metric may take for a row; None: no limit. `measures`:
        what else is measured of each answer.
        """
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
        named = self._labels or collect_labels(e.expected for e in examples)
        self._grader = make_grader(metric, named, timeout)
        self._target = target
        self._measures = measures or Measures()
        self._answer = answer
        self._repeats = repeats
        self._role = role
        self._examples = {e.id: e for e in examples}

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the metric "label" allows; empty for other metrics."""
        return self._labels

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the grades so far."""
        return tuple(filter(None, (self._grader.warning, *self._measures.warnings)))

    def ids(self, split: Split) -> tuple[str, ...]:
        """Return the ids of the rows of a split without guard sets, in the order of the data."""
        return tuple(e.id for e in self._examples.values() if e.split == split and not e.guard)

    def evaluate(self, prompt: Prompt, ids: Sequence[str]) -> list[Outcome]:
        """Score the prompt on rows. Returns one Outcome per id, in order.

        The target gets all rows in one call per repeat. Raises KeyError for an unknown id, and what
        the target raises: BudgetSpent, TargetRefused.
        """
        return self.evaluate_all([prompt], ids)[0]

    def evaluate_all(
        self, prompts: Sequence[Prompt], ids: Sequence[str], again: bool = False
    ) -> list[list[Outcome]]:
        """Score several prompts on the same rows, as `evaluate` does, in one call per repeat.

        again: by further calls in place of those of an earlier evaluation, where answers are free.
        """
        examples = [self._examples[id] for id in ids] * len(prompts)
        asked = [prompt for prompt in prompts for _ in ids]
        chats = [make_chat(*pair, self._role) for pair in zip(asked, examples, strict=True)]
        if self._by_label and self._target.chooses:
            outcomes = self._choose(examples, chats)
        else:
            first = self._repeats if again else 0
            repeats = range(first, first + self._repeats)
            rounds = [self._answer_rows(examples, chats, repeat) for repeat in repeats]
            tried = zip(examples, *rounds, strict=True)
            outcomes = [self._make_outcome(example, tries) for example, *tries in tried]
        return [outcomes[i * len(ids) : (i + 1) * len(ids)] for i in range(len(prompts))]

    def _choose(self, examples: Sequence[Example], chats: Sequence[Chat]) -> list[Outcome]:
        options = [fill_answer(self._answer, label) for label in self._labels]
        replies = self._target.choose(chats, options)
        measured = self._measures.measure(examples, replies)
        return [
            self._grade_choice(example, reply, options, values)
            for example, reply, values in zip(examples, replies, measured, strict=True)
        ]

    def _grade_choice(
        self, example: Example, reply: Reply, options: Sequence[str], values: Values
    ) -> Outcome:
        error = reply.error
        if not error and not _are_finite(reply.logps):
            error = "the target gave no finite log-probability for the options"
        if error:
            return Outcome(example.id, "failed", error=error)
        right = options.index(self._find_right_response(example) or "")
        score = float(options.index(reply.text) == right)
        top = max(reply.logps)
        weights = [math.exp(SHARPNESS * (logp - top)) for logp in reply.logps]
        trace = self._make_trace(example, reply.text, Grade(score))
        ranking_score = weights[right] / sum(weights)
        return Outcome(example.id, "scored", score, ranking_score, trace=trace, values=values)

    def _answer_rows(
        self, examples: Sequence[Example], chats: Sequence[Chat], repeat: int
    ) -> list["_Attempt"]:
        """Ask all rows once. Only rows with a reply are graded."""
        replies = self._target.respond(chats, repeat=repeat)
        given = [(e, r) for e, r in zip(examples, replies, strict=True) if not r.error and r.grade is None]
        new = self._grader.grade([e for e, _ in given], [r.text for _, r in given])
        measured = self._measures.measure(examples, replies)
        grades = iter(new)
        tries = [
            _Attempt(reply.text, _read_grade(reply) or next(grades), reply.cut, values)
            for reply, values in zip(replies, measured, strict=True)
        ]
        self._target.keep_grades(
            [
                (reply, {**asdict(one.grade), **self._measures.pack(one.values)})
                for reply, one in zip(replies, tries, strict=True)
                if not reply.error and reply.grade is None and not one.grade.error
            ]
        )
        return tries

    def _make_outcome(self, example: Example, tries: Sequence["_Attempt"]) -> Outcome:
        errors = [t.grade.error for t in tries if t.grade.error]
        if errors:
            return Outcome(example.id, "failed", error=errors[0])
        score = sum(t.grade.score for t in tries) / len(tries)
        worst = min(tries, key=lambda t: t.grade.score)  # it shows best what to improve
        grade = Grade(score, worst.grade.feedback)
        return Outcome(
            example.id,
            "scored",
            score,
            ranking_score=score,
            unparsed=any(t.grade.unparsed for t in tries),
            trace=self._make_trace(example, worst.response, grade),
            cut=any(t.cut for t in tries),
            values=average_values([t.values for t in tries]),
        )

    def _find_right_response(self, example: Example) -> str | None:
        """Return the right answer in the words in which the target would give it."""
        if not self._by_label or example.expected is None:
            return self._grader.find_right_response(example)
        return fill_answer(self._answer, match_label(example.expected, self._labels) or "")

    def _make_trace(self, example: Example, response: str, grade: Grade) -> Trace:
        desired = self._find_right_response(example)
        if desired is None and grade.score >= MIN_GOOD_SCORE:
            desired = response
        return Trace(
            id=example.id,  # a denoiser reads one trace of a row at a time, so the id is unique
            query=example.input,
            response=response,
            desired=desired,
            feedback=(Feedback("comment", grade.feedback),) if grade.feedback else (),
            score=grade.score,
        )


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One response to one row, with its grade."""

    response: str
    grade: Grade
    cut: bool
    values: Values


def _read_grade(reply: Reply) -> Grade | None:
    """Return the grade that a reply has before it is graded: of a failed call, or a stored one."""
    if reply.error:
        return Grade(error=reply.error)
    return None if reply.grade is None else Grade(**{k: v for k, v in reply.grade.items() if k != VALUES})


def make_chat(prompt: Prompt, example: Example, role: Literal["system", "user"] = "system") -> Chat:
    """Return the messages for the target: the prompt with its variables filled, and the input.

    With `role` "user" the prompt is the only message. Of a prompt of several components each is a
    message with its name, before the input.
    """
    if parts := prompt.components:
        return _make_component_chat(parts, example)
    system = fill(prompt.text, example.row)
    if role == "user":
        return (Message("user", system),)
    user = Message("user", example.input)
    return (Message("system", system), user) if system.strip() else (user,)


def find_role(component: str) -> Role:
    """Return the role of the messages of a component: `system`, `user`, `assistant/2`.

    OpenAI's `developer` is the system message of its newer models. Another component is no message: a
    tool, or what only a function of the user can use.
    """
    role: Any = component.partition("/")[0].replace("developer", "system")
    return role if role in TURNS else "component"


def _make_component_chat(parts: Mapping[str, Prompt], example: Example) -> Chat:
    texts = [Message(find_role(name), fill(part.text, example.row), name) for name, part in parts.items()]
    return (*texts, Message("user", example.input))


def find_unpredicted_labels(
    outcomes: Sequence[Outcome], labels: Sequence[str], answer: str = "{label}"
) -> tuple[str, ...]:
    """Return the labels that no response names.

    They show that a label is wrong, or that the target cannot do the task.
    """
    answers = {fill_answer(answer, label): label for label in labels}
    responses = {o.trace.response for o in outcomes if o.trace is not None}
    predicted = {answers.get(text) or parse_label(text, labels) for text in responses}
    return tuple(label for label in labels if label not in predicted)


def fill_answer(answer: str, label: str) -> str:
    """Fill the label into the answer template. Only {label} is replaced."""
    return answer.replace("{label}", label)


def _are_finite(logps: Sequence[float]) -> bool:
    return bool(logps) and not any(map(math.isnan, logps)) and math.isfinite(max(logps))


def _check_expected(examples: Sequence[Example], metric: str) -> None:
    for example in examples:
        if example.expected is None:
            raise ConfigError(f"metric {metric!r} needs the right answers; name their column with `expected`")


def _check_labels(examples: Sequence[Example], labels: Sequence[str]) -> None:
    for i, label in enumerate(labels):
        if not label.strip():
            raise ConfigError("a label is empty; remove it")
        if twin := next((t for t in labels[:i] if normalise_label(t) == normalise_label(label)), ""):
            raise ConfigError(
                f"the labels {twin!r} and {label!r} differ only in case, hyphens or spacing; use one"
            )
    seen = {match_label(e.expected or "", labels): e.expected for e in examples}
    if None in seen:
        raise ConfigError(
            f"the data has the answer {seen[None]!r}, which is not an allowed label; "
            f"allowed: {', '.join(labels)}"
        )
    if len(seen) < 2:
        raise ConfigError(
            f"all {len(examples)} rows have the same right answer {next(iter(seen), None)!r}; "
            "give rows of at least two labels"
        )
