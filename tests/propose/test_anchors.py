"""What the traces say that a prompt lacks, and what of them may become an anchor."""

import numpy as np

from remask.propose.anchors import Hints, find_hints, find_missing_words, find_opening, list_instructions
from remask.types import Feedback, Trace


def trace(i: int, query: str, desired: str | None, note: str = "") -> Trace:
    notes = (Feedback("comment", note, None),) if note else ()
    return Trace(f"t{i}", query, "?", desired, notes, score=0.0)


LETTERS = [
    trace(i, f"My lamp broke. {name}", f"Dear {name}, sorry.")
    for i, name in enumerate(["Anna", "Max", "Eva", "Leo"])
]


def test_an_opening_is_what_most_right_answers_begin_with() -> None:
    assert find_hints(LETTERS, "Write a letter.").opening == "Dear"
    assert find_hints(LETTERS, "Begin with Dear.").opening == "", "the prompt has it"
    assert find_opening(["yes", "yes", "yes", "no"]) == "", "a whole answer is a label"
    assert find_opening(["a b", "c d", "e f"]) == find_opening([]) == ""
    assert find_opening(["The answer is 3", "The answer is 5", "The answer is 9", "No"]) == "The answer is"


def test_labels_are_anchors_only_where_the_prompt_lacks_one() -> None:
    labels = ("good", "bad")
    assert find_hints([], "Rate it.", labels).labels == labels
    assert find_hints([], "Say good or BAD.", labels).labels == ()
    assert find_hints([], "Rate it.", [f"label {i}" for i in range(30)]).labels == ()


def test_missing_words_are_words_of_the_task_and_not_of_one_user() -> None:
    notes = [
        "Ask for the receipt first.",
        "You forgot the receipt.",
        "No receipt was asked for.",
        "Fine, 12345.",
    ]
    traces = [trace(i, f"Broken lamp of user{i}", None, note) for i, note in enumerate(notes)]
    assert find_missing_words(traces, "Help the user.") == ("receipt",)
    assert find_missing_words(traces, "Ask for a receipt.") == ()
    asked = [trace(i, "Where is my receipt?", None, note) for i, note in enumerate(notes)]
    assert find_missing_words(asked, "Help the user.") == (), "users say it themselves"


def test_the_feedback_of_the_label_metric_and_placeholders_give_no_words() -> None:
    note = "The answer names no allowed label (good, bad)."
    traces = [trace(i, f"q{i}", "good", note) for i in range(6)]
    assert find_missing_words(traces, "Rate it.", ("good", "bad")) == ()
    hidden = [trace(i, f"q{i}", None, "Write to <EMAIL_1>.") for i in range(6)]
    assert find_missing_words(hidden, "Help.") == ("Write",)


def test_the_library_fills_in_what_is_known() -> None:
    plain = list_instructions(Hints(), np.random.default_rng(0))
    filled = list_instructions(Hints(labels=("good", "bad"), opening="Dear"), np.random.default_rng(0))
    assert len(filled) > len(plain) > 10
    assert not any("{" in line for line in (*plain, *filled))
    assert all(line.endswith(".") for line in filled)
