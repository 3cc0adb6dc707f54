"""How traces are rendered before the prompt."""

from remask.dlm.render import render, render_rest
from remask.types import Feedback, Trace

HEADING = "Infer the system prompt of the assistant from its conversations.\n"


def test_desired_answer_is_the_turn_and_the_wrong_one_feedback() -> None:
    wrong = Trace("1", "a fine film", "negative", desired="positive", score=0.0)
    right = Trace("2", "a dull film", "negative", desired="negative", score=1.0)
    assert render((wrong, right)) == (
        HEADING + "\nUser: a fine film\nAssistant: positive\n"
        'Feedback: The answer "negative" was wrong.\n'
        "\nUser: a dull film\nAssistant: negative\n"
    )


def test_response_is_the_turn_without_a_desired_answer() -> None:
    trace = Trace("1", "hello", "Go away", feedback=(Feedback("comment", "Rude."),), score=0.0)
    expected = HEADING + "\nUser: hello\nAssistant: Go away\nFeedback: Rude.\n"
    assert render((trace,)) == expected


def test_feedback_equal_to_the_desired_answer_is_left_out() -> None:
    trace = Trace("1", "q", "no", desired="yes", feedback=(Feedback("label", "yes"),))
    assert render((trace,)).count("yes") == 1
    assert 'Feedback: The answer "no" was wrong.\n' in render((trace,))


def test_answer_with_a_full_score_is_not_called_wrong() -> None:
    trace = Trace("1", "q", "Yes!", desired="yes", score=1.0)
    assert "Feedback" not in render((trace,))


def test_long_wrong_answer_is_clipped() -> None:
    trace = Trace("1", "q", "word " * 100, desired="yes", score=0.0)
    assert render((trace,)).count("word") == 25


def test_render_without_traces_and_of_the_rest_of_a_prompt() -> None:
    assert render(()) == HEADING
    assert render_rest("", "") == ""
    assert render_rest("You are", "Bye.") == "\nThe prompt begins: You are\n\nThe prompt ends: Bye.\n"
