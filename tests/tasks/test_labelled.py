"""A prompt on labelled rows: scripted targets for every rule, the built-in one for real."""

import math

import pytest

from fakes.scripted_target import ScriptedTarget
from remask.data.dataset import Columns, load
from remask.data.placeholders import fill
from remask.errors import BudgetSpent, ConfigError, TargetRefused, TargetUnreliable
from remask.ports import Reply, Task
from remask.prompt import Prompt
from remask.tasks.labelled import SHARPNESS, LabelledTask, find_unpredicted_labels, make_chat
from remask.tasks.metrics import make_judge
from remask.types import Example, Feedback, Message, Outcome, Score, mean_score

EXAMPLES = tuple(
    Example(f"{i}", split, text, label, {"tone": text.upper()})
    for i, (split, text, label) in enumerate(
        [
            ("train", "good film", "positive"),
            ("test", "bad film", "negative"),
            ("train", "dull film", "negative"),
            ("validation", "fine film", "positive"),
        ]
    )
)
IDS = ["0", "1", "2", "3"]
PROMPT = Prompt("Classify.")


def user(chat) -> str:
    return chat[-1].content


def keyword(chat) -> str:
    return {"good film": "Positive!", "fine film": "I see no label"}.get(user(chat), "negative")


def test_task_ids_keep_the_order_of_the_data() -> None:
    task: Task = LabelledTask(EXAMPLES, ScriptedTarget(keyword))
    assert task.ids("train") == ("0", "2")
    assert task.ids("test") == ("1",)


def test_task_parses_free_answers_and_marks_unparsed_ones() -> None:
    outcomes = LabelledTask(EXAMPLES, ScriptedTarget(keyword), answer="It is {label}.").evaluate(
        PROMPT, ["3", "2", "0"]
    )
    assert [(o.example, o.score, o.unparsed) for o in outcomes] == [
        ("3", 0.0, True),
        ("2", 1.0, False),
        ("0", 1.0, False),
    ]
    trace = outcomes[0].trace
    assert trace is not None
    assert (trace.query, trace.response, trace.desired) == ("fine film", "I see no label", "It is positive.")
    assert trace.score == 0
    assert trace.feedback == (Feedback("comment", "The answer names no allowed label (negative, positive)."),)
    assert outcomes[2].trace.response == "Positive!" and outcomes[2].trace.feedback == ()


def test_task_asks_a_target_that_can_choose_for_a_choice() -> None:
    asked = []

    def prefer(chat, options):
        asked.append(tuple(options))
        return (-1.0, -2.0) if user(chat) == "bad film" else (-3.0, -2.5)

    target = ScriptedTarget(keyword, prefer)
    outcomes = LabelledTask(EXAMPLES, target, answer="It is {label}.").evaluate(PROMPT, IDS)
    assert set(asked) == {("It is negative.", "It is positive.")}
    assert [o.score for o in outcomes] == [1, 1, 0, 1]
    likely = 1 / (1 + math.exp(-SHARPNESS))  # one nat apart
    half = 1 / (1 + math.exp(-0.5 * SHARPNESS))
    assert [o.ranking_score for o in outcomes] == pytest.approx([half, likely, 1 - half, half])
    assert outcomes[2].trace.response == "It is positive."
    assert outcomes[2].trace.desired == "It is negative."
    assert target.calls == 4


def test_ranking_scores_of_long_answers_are_finite() -> None:
    target = ScriptedTarget(keyword, lambda chat, options: (-5000.0, -5001.0))
    (outcome,) = LabelledTask(EXAMPLES, target).evaluate(PROMPT, ["1"])
    assert outcome.ranking_score == pytest.approx(1 / (1 + math.exp(-SHARPNESS)))


def test_task_with_another_metric_asks_for_free_answers() -> None:
    target = ScriptedTarget(lambda chat: "negative", lambda chat, options: 1 / 0)
    outcomes = LabelledTask(EXAMPLES, target, "exact").evaluate(PROMPT, IDS)
    assert [o.score for o in outcomes] == [0, 1, 1, 0]
    assert outcomes[0].ranking_score == 0 and outcomes[1].ranking_score == 1
    assert outcomes[0].trace.desired == "positive"


@pytest.mark.parametrize("logps", [(), (math.nan, -1.0), (-math.inf, -math.inf)])
def test_choice_without_probabilities_has_failed(logps) -> None:
    class Broken(ScriptedTarget):
        def choose(self, chats, options):
            return [Reply(options[0], logps=logps) for _ in chats]

    (outcome,) = LabelledTask(EXAMPLES, Broken(keyword, lambda c, o: ())).evaluate(PROMPT, ["0"])
    assert outcome.status == "failed" and "log-probability" in outcome.error


@pytest.mark.parametrize("kind", ["choose", "respond"])
def test_failed_call_has_no_score(kind: str) -> None:
    def fail(chat) -> str:
        return "timeout" if user(chat) == "bad film" else ""

    target = (
        ScriptedTarget(keyword, lambda chat, options: (0.0, -1.0), fail=fail)
        if kind == "choose"
        else ScriptedTarget(keyword, fail=fail)
    )
    outcomes = LabelledTask(EXAMPLES, target).evaluate(PROMPT, IDS)
    assert [o.status for o in outcomes] == ["scored", "failed", "scored", "scored"]
    assert outcomes[1].error == "timeout" and outcomes[1].trace is None
    assert mean_score(outcomes) == pytest.approx(sum(o.score for o in outcomes) / 3)
    with pytest.raises(TargetUnreliable, match=r"2 of 4 rows have no score.*timeout"):
        mean_score([outcomes[1], *outcomes[:3]])


class Moody(ScriptedTarget):
    """Answers by (message, repeat)."""

    def __init__(self, answers) -> None:
        super().__init__(lambda chat: "")
        self.answers = answers
        self.asked: list[tuple[int, int]] = []

    def respond(self, chats, repeat=0):
        self.asked.append((len(chats), repeat))
        said = [self.answers(user(chat), repeat) for chat in chats]
        return [Reply("", error=text[1:]) if text.startswith("!") else Reply(text) for text in said]


def test_repeats_are_averaged_with_one_call_for_all_rows() -> None:
    target = Moody(lambda text, repeat: ["positive", "negative", "none"][repeat])
    outcomes = LabelledTask(EXAMPLES, target, repeats=3).evaluate(PROMPT, IDS)
    assert target.asked == [(4, 0), (4, 1), (4, 2)]
    assert [o.score for o in outcomes] == pytest.approx([1 / 3] * 4)
    assert outcomes[0].trace.response == "negative"  # the first of the worst
    assert outcomes[0].trace.score == outcomes[0].ranking_score == pytest.approx(1 / 3)
    assert all(o.unparsed for o in outcomes)


def test_repeat_that_failed_fails_its_row() -> None:
    target = Moody(lambda text, repeat: "!reset" if (text, repeat) == ("bad film", 1) else "negative")
    outcomes = LabelledTask(EXAMPLES, target, repeats=2).evaluate(PROMPT, IDS)
    assert [o.status for o in outcomes] == ["scored", "failed", "scored", "scored"]
    assert outcomes[1].error == "reset"


def test_metric_function_gets_row_and_response() -> None:
    def metric(example: Example, response: str) -> Score:
        assert example.row["tone"] == example.input.upper()
        return Score(len(response) / 10, f"{len(response)} letters")

    task = LabelledTask(EXAMPLES, ScriptedTarget(lambda chat: "abc"), metric)
    (outcome,) = task.evaluate(PROMPT, ["1"])
    assert outcome.score == outcome.ranking_score == pytest.approx(0.3)
    assert outcome.trace.feedback == (Feedback("comment", "3 letters"),)
    assert task.labels == ()


def test_metric_that_always_raises_gives_no_score() -> None:
    task = LabelledTask(EXAMPLES, ScriptedTarget(keyword), lambda example, response: response + 1)
    outcomes = task.evaluate(PROMPT, IDS)
    assert {o.status for o in outcomes} == {"failed"}
    with pytest.raises(TargetUnreliable, match=r"4 of 4 .* metric .* raised TypeError"):
        mean_score(outcomes)


def test_judge_grades_responses_without_right_answers() -> None:
    examples = [Example("x", "train", "Say hi", None)]
    critic = ScriptedTarget(lambda chat: "Reason: curt.\nScore: 4")
    task = LabelledTask(examples, ScriptedTarget(lambda chat: "hi"), make_judge(critic, "Polite?"))
    (outcome,) = task.evaluate(PROMPT, ["x"])
    assert (outcome.score, outcome.trace.desired) == (0.4, None)
    assert outcome.trace.feedback[0].text == "curt."


@pytest.mark.parametrize("end", [BudgetSpent("spent"), TargetRefused("key")])
def test_task_raises_what_ends_a_run(end: Exception) -> None:
    class Ending(ScriptedTarget):
        def respond(self, chats, repeat=0):
            raise end

    with pytest.raises(type(end)):
        LabelledTask(EXAMPLES, Ending(keyword)).evaluate(PROMPT, IDS)


def test_task_handles_unknown_ids_and_no_ids() -> None:
    target = ScriptedTarget(keyword)
    task = LabelledTask(EXAMPLES, target)
    with pytest.raises(KeyError):
        task.evaluate(PROMPT, ["0", "nine"])
    assert task.evaluate(PROMPT, []) == [] and target.calls == 0


def test_make_chat_fills_the_prompt_and_adds_the_input() -> None:
    example = Example("x", "train", "Is it {lang}?", "yes", {"lang": "{{lang}}", "n": "2"})
    prompt = Prompt("Speak {lang}, {{ n }}, ${n}, {other}, {label}, {n!r} {{}} {% if n %}")
    assert make_chat(prompt, example) == (
        Message("system", "Speak {{lang}}, 2, 2, {other}, {label}, {n!r} {{}} {% if n %}"),
        Message("user", "Is it {lang}?"),
    )
    assert make_chat(Prompt(" \n"), example) == (Message("user", "Is it {lang}?"),)
    assert fill("{" * 5000, {}) == "{" * 5000


def test_make_chat_never_fills_in_the_right_answer() -> None:
    data = [{"input": "q", "label": "secret", "split": "train"}]
    (example,) = load(data, Columns("input", "label", "split")).examples
    assert "secret" not in make_chat(Prompt("The answer is {label}."), example)[0].content


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer": "It is."}, "must contain {label}"),
        ({"repeats": 0}, "repeats is 0"),
        ({"metric": "bleu"}, "unknown metric 'bleu'"),
        ({"labels": ("positive", "neutral")}, "'negative', which is not an allowed label"),
        ({"labels": ("positive", "Positive", "negative")}, "differ only in case"),
        ({"labels": ("positive", " ", "negative")}, "a label is empty"),
        ({"examples": EXAMPLES[:1] + EXAMPLES[3:]}, "all 2 rows have the same right answer"),
        ({"examples": [Example("x", "train", "hi", None)]}, "needs the right answers"),
        ({"examples": [Example("x", "train", "hi", None)], "metric": "f1"}, "'f1' needs the right"),
    ],
)
def test_task_names_what_does_not_fit(change: dict, words: str) -> None:
    given = {"examples": EXAMPLES, "target": ScriptedTarget(keyword), **change}
    with pytest.raises(ConfigError) as caught:
        LabelledTask(**given)
    assert words in str(caught.value)


def test_labels_match_up_to_case_and_underscores() -> None:
    examples = [Example("a", "train", "x", "Not Equivalent"), Example("b", "train", "y", "equivalent")]
    target = ScriptedTarget(lambda chat: "not_equivalent")
    task = LabelledTask(examples, target, labels=("equivalent", "not_equivalent"))
    outcomes = task.evaluate(PROMPT, ["a", "b"])
    assert [o.score for o in outcomes] == [1, 0]
    assert outcomes[0].trace.desired == "not_equivalent"


def test_find_unpredicted_labels_finds_labels_of_no_response() -> None:
    labels = ("negative", "neutral", "positive")
    task = LabelledTask(EXAMPLES, ScriptedTarget(lambda c: "negative"), labels=labels)
    outcomes = task.evaluate(PROMPT, IDS)
    assert find_unpredicted_labels(outcomes, labels) == ("neutral", "positive")
    answer = "Of negative, neutral, positive it is {label}."
    target = ScriptedTarget(keyword, lambda chat, options: (0.0, -1.0, -2.0 + len(user(chat)) % 2))
    outcomes = LabelledTask(EXAMPLES, target, labels=labels, answer=answer).evaluate(PROMPT, IDS)
    assert find_unpredicted_labels(outcomes, labels, answer) == ("neutral", "positive")


def test_mean_score_tolerates_few_failures() -> None:
    scored = [Outcome(f"{i}", "scored", i % 2) for i in range(98)]
    failed = [Outcome("f", "failed", score=1.0, error="down")] * 2
    assert mean_score(scored + failed) == 0.5
    with pytest.raises(TargetUnreliable, match="3 of 101"):
        mean_score([*scored, *failed, failed[0]])
    with pytest.raises(TargetUnreliable):
        mean_score([])
    with pytest.raises(TargetUnreliable):
        mean_score(failed, max_failed=1.0)


SENTENCES = [
    ("a warm and funny film that i would gladly see again .", "positive"),
    ("the jokes are stale and the plot goes nowhere .", "negative"),
    ("an absolute delight from the first scene to the last .", "positive"),
    ("two hours of boredom that i will never get back .", "negative"),
    ("beautifully shot , with a wonderful performance by its young star .", "positive"),
    ("a terrible script and even worse acting .", "negative"),
    ("one of the best thrillers of the year .", "positive"),
    ("lifeless , loud and painfully stupid .", "negative"),
]


def test_task_works_with_the_builtin_target() -> None:
    pytest.importorskip("torch")
    from remask.models.backbone.builtin_weights import load_base
    from remask.models.builtin import BuiltinTarget

    rows = [{"input": text, "label": label, "split": "test"} for text, label in SENTENCES]
    dataset = load(rows, Columns("input", "label", "split"))
    task = LabelledTask(dataset.examples, BuiltinTarget(load_base()), answer="The sentiment is {label}.")
    outcomes = task.evaluate(Prompt("Classify the sentiment."), task.ids("test"))
    assert mean_score(outcomes) >= 0.6
    assert [o.trace.query for o in outcomes] == [text for text, _ in SENTENCES]
    assert all((o.ranking_score > 0.5) == (o.score == 1) for o in outcomes)
    assert {o.trace.response for o in outcomes} <= {
        "The sentiment is positive.",
        "The sentiment is negative.",
    }
