"""Answers that are JSON, numbers or lists of labels."""

import json

import pytest

from remask.models.function import FunctionTarget
from remask.prompt import Prompt
from remask.tasks.compare_answers import (
    collect_labels,
    compare_json,
    compare_labels,
    compare_numbers,
    find_number,
    parse_list,
)
from remask.tasks.labelled import LabelledTask
from remask.tasks.metrics import METRICS
from remask.types import Example

RIGHT = '{"name": "Ann", "tags": ["a", "b"], "age": 3}'


@pytest.mark.parametrize(
    "response",
    [
        RIGHT,
        '{"age": 3.0, "tags": ["a", "b"], "name": "Ann"}',
        f"Here it is:\n```json\n{RIGHT}\n```\nDone.",
        f"The answer {{see}} is {RIGHT}.",
        json.dumps(json.loads(RIGHT), indent=2),
    ],
)
def test_equal_json_scores_1_in_any_order_and_notation(response: str) -> None:
    assert compare_json(RIGHT, response) == (1.0, "")


@pytest.mark.parametrize(
    ("response", "words"),
    [
        ('{"name": "Ann", "tags": ["b", "a"], "age": 3}', 'At $.tags[0] the answer has "b".'),
        ('{"name": "Ann", "tags": ["a"], "age": 3}', "At $.tags there are 1 items in place of 2."),
        ('{"name": "Ann", "tags": ["a", "b"]}', "At $ the key 'age' is missing."),
        ('{"name": "Ann", "tags": ["a", "b"], "age": 3, "x": 1}', "At $ the key 'x' is not wanted."),
        ('{"name": "Ann", "tags": ["a", "b"], "age": true}', "At $.age the answer has true."),
        ('{"name": "Ann", "tags": ["a", "b"], "age": "3"}', 'At $.age the answer has "3".'),
        ("Ann, 3", "The answer holds no JSON."),
        ("[" * 100_000, "The answer holds no JSON."),
    ],
)
def test_other_json_scores_0_and_says_where(response: str, words: str) -> None:
    assert compare_json(RIGHT, response) == (0.0, words)


def test_true_is_not_1() -> None:
    assert compare_json("1", "true")[0] == 0 and compare_json("true", "true")[0] == 1


def test_whole_numbers_of_json_are_equal_digit_by_digit() -> None:
    assert compare_json("12345678", "12345679") == (0.0, "At $ the answer has 12345679.")
    assert compare_json("3", f"1{'0' * 400}")[0] == compare_json("0.5", f"1{'0' * 400}")[0] == 0
    assert compare_json("6.02214076e23", "6.0221408e23")[0] == 1


@pytest.mark.parametrize(
    ("expected", "response"),
    [
        ("42", "42"), ("42", "It is 42."), ("42", "6 × 7 = 42"), ("42", "The answer is **42** apples."),
        ("42", "#### 42"), ("She has 6 and 7, so 6*7.\n#### 42", "So 42"), ("42", "$\\boxed{42}$ as 40 + 2"),
        ("1234.5", "1,234.5"), ("1234,5", "1.234,50 €"), ("1,234", "1234"),
        ("1234567", "1\u202f234\u202f567"), ("8", "The answer is 8 (in 3 steps)."),
        ("42", "Answer: 6 * 7 = 42"),
        ("0.5", "1/2"), ("0.5", "0,5"), ("-3", "\u22123"), ("45", "45 %"), ("100000", "1e5"), ("42", "４２"),
        ("0.333333333", "0.3333333334"), ("7", "Answer: 7\nThis took 3 steps."), ("12", "答案：12"),
        ("7.5", "The answer is 7½"), ("0.75", "It is ¾ cup."), ("40", "The room has 40 m²"),
    ],
)  # fmt: skip
def test_equal_numbers_score_1(expected: str, response: str) -> None:
    assert compare_numbers(expected, response)[0] == 1


@pytest.mark.parametrize(
    ("expected", "response", "words"),
    [
        ("42", "41", "The answer says 41."), ("42", "none", "The answer holds no number."),
        ("4", "4.5", "The answer says 4.5."), ("-3", "3", "The answer says 3."),
        ("42", "1/0", "The answer holds no number."), ("12345678", "12345679", "The answer says 12345679."),
    ],
)  # fmt: skip
def test_other_numbers_score_0(expected: str, response: str, words: str) -> None:
    assert compare_numbers(expected, response) == (0.0, words)


def test_a_right_answer_without_a_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="the right answer 'none' holds no number"):
        compare_numbers("none", "1")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ('["a", "b"]', ("a", "b")), ("['a', 'b']", ("a", "b")), ("[]", ()),
        ('["a", "a"]', ("a",)), ("[1, 2]", ("1", "2")),
        ("a, b", None), ('{"a": 1}', None), ("[a", None), ('[["a"]]', None),
    ],
)  # fmt: skip
def test_parse_list_reads_json_and_python(text: str, labels: tuple[str, ...] | None) -> None:
    assert parse_list(text) == labels


ALLOWED = ("toxic", "severe toxic", "insult", "identity_hate")


@pytest.mark.parametrize(
    ("right", "response", "score", "words"),
    [
        (["toxic", "insult"], "insult, toxic", 1.0, ""),
        (["toxic", "insult"], '["Toxic", "INSULT"]', 1.0, ""),
        (["toxic", "insult"], 'Labels: {"labels": ["insult"]}', 2 / 3, "Missing: toxic."),
        (["severe toxic"], "It is severe-toxic.", 1.0, ""),
        (["identity_hate"], "Identity hate", 1.0, ""),
        (["toxic"], "toxic and insult", 2 / 3, "Wrong: insult."),
        (["toxic"], "none", 0.0, "Missing: toxic."),
        ([], "none", 1.0, ""),
        ([], "insult", 0.0, "Wrong: insult."),
        (["toxic"], "intoxicated", 0.0, "Missing: toxic."),
    ],
)
def test_labels_are_scored_by_f1(right: list[str], response: str, score: float, words: str) -> None:
    assert compare_labels(right, response, ALLOWED) == (pytest.approx(score), words)


def test_a_task_with_lists_of_labels_is_scored_by_f1_over_labels() -> None:
    examples = [Example("1", "train", "x", '["toxic", "insult"]'), Example("2", "train", "y", "[]")]
    assert collect_labels(e.expected for e in examples) == ("insult", "toxic")
    answers = {"x": "It is toxic.", "y": "Nothing."}
    task = LabelledTask(examples, FunctionTarget(lambda chat: answers[chat[-1]["content"]]), "f1")
    first, second = task.evaluate(Prompt.parse("Classify."), ["1", "2"])
    assert (first.score, second.score) == (pytest.approx(2 / 3), 1.0)
    assert first.trace is not None and first.trace.feedback[0].text == "Missing: insult."


@pytest.mark.parametrize(
    ("metric", "expected", "response", "score"),
    [("json", '{"a": 1}', '{"a": 1.0}', 1.0), ("number", "7", "seven: 7", 1.0), ("f1", "x y", "y z", 0.5)],
)
def test_metrics_have_names(metric: str, expected: str, response: str, score: float) -> None:
    (grade,) = METRICS[metric](()).grade([Example("1", "train", "x", expected)], [response])
    assert grade.score == pytest.approx(score) and not grade.error


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1 000 000", 1e6), ("Il y a 12 500 habitants.", 12_500), ("12 500,75 €", 12_500.75),
        ("In 2019 it was 1 234 567.", 1_234_567), ("2 of 12 500", 500), ("5 10", 10), ("0 500", 500),
    ],
)  # fmt: skip
def test_spaces_between_thousands_are_read_where_they_are_clear(text: str, number: float) -> None:
    assert find_number(text) == number


def test_json_with_letters_and_marks_apart_is_equal() -> None:
    for response in (
        '{"cafe\u0301": "cre\u0300me"}',
        '{"cafe\\u0301": "cr\u00e8me"}',
        'So: {"caf\u00e9": "cre\\u0300me"}!',
    ):
        assert compare_json('{"caf\u00e9": "cr\u00e8me"}', response)[0] == 1
