"""What the traces say that a prompt lacks, and what of them may become an anchor."""

import numpy as np

from remask.propose.anchors import (
    Hints,
    find_copied,
    find_hints,
    find_missing_words,
    find_opening,
    list_instructions,
)
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
    assert find_opening([f"Hello, {n}" for n in "abc"]) == "Hello", "no comma"
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


def test_words_that_far_fewer_traces_have_are_no_hints() -> None:
    notes = ["No receipt.", "Where is the receipt?", "Receipt first.", "The receipt.", "A receipt."]
    traces = [trace(i, f"q{i}", "kindly" if i < 3 else None, note) for i, note in enumerate(2 * notes)]
    assert find_missing_words(traces, "Help.") == ("receipt",)
    assert find_missing_words(traces, "Help.", opening="The receipt") == ("kindly",)


def say_copied(*pairs: tuple[str, str], opening: str = "") -> str:
    return find_copied([trace(i, *pair) for i, pair in enumerate(pairs)], opening)[1]


def test_what_right_answers_copy_is_said_by_kind_and_place_without_a_word_of_a_trace() -> None:
    assert find_hints(LETTERS, "Write a letter.").beginning == '"Dear" and the name at the end of the message'
    numbers = [(f"Order {n} of Eva is late.", f"No. {n}: sorry") for n in (512, 77, "A9")]
    assert say_copied(*numbers, opening="No.") == "the number in the message"
    names = [(f"I am {name}, hello.", f"{name}, no.") for name in ("Zoë", "Max", "Eva")]
    assert say_copied(*names) == "the name in the message"
    assert (
        say_copied(*((f"{w} is late", f"{w}: no") for w in ("Lamp", "Coat", "Tent")))
        == "the first word of the message"
    )
    assert say_copied(*((f"the {w} is", w + " late") for w in ("lamp", "coat", "tent"))) == "", "no place"
    assert say_copied(*(("My lamp", "lamp it is") for _ in range(5))) == "", "all copy the same"
    assert say_copied(*names[:2]) == say_copied() == "", "too few"


def test_a_prompt_that_says_the_beginning_needs_no_hint_of_it() -> None:
    assert find_hints(LETTERS, "Begin with Dear and the name.").beginning == ""
    assert find_hints(LETTERS, "Begin with Dear.").beginning, "what follows is still unsaid"


def test_the_library_fills_in_what_is_known() -> None:
    rng = np.random.default_rng(0)
    plain, nothing = list_instructions(Hints(), rng)
    same, filled = list_instructions(Hints(labels=("good", "bad"), opening="Dear", words=("receipt",)), rng)
    assert same == plain and len(plain) > 10 and not nothing
    assert {slots for _, slots in filled} == {
        *map(frozenset, ({"labels"}, {"beginning"}, {"word"}, {"beginning", "word"}))
    }
    lines = [*plain, *(line for line, _ in filled)]
    assert not any("{" in line for line in lines)
    assert all(line.endswith(".") for line in lines)
