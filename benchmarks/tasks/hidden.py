"""The family hidden: what an answer must be like stands only in the traces.

hidden_a, hidden_b and hidden_c are drawn by the same generator. Each has two hidden rules, each half
of the score. How an answer must open shows only through the right answers. Which word it must have
is said only in the feedback, in several wordings. No prompt but one that was made from the traces
can know them, and the rules of another task of the family are of no use: no two share one. The
openings and words are such as the target writes where a prompt asks for both plainly.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.tasks import BenchTask, Row
from benchmarks.tasks.complaints import draw_complaints
from remask.ids import rng_for
from remask.types import Example, Score

LETTERS = "abc"
OPENINGS = ("Hello", "Dear customer", "Hi")
WORDS = ("thank", "sorry", "glad")
# Right answers show the opening and keep the word to themselves.
ANSWERS = (
    "we look at the {thing} today.",
    "the {thing} is on our list now.",
    "somebody will call you about the {thing}.",
    "your message about the {thing} is with us.",
    "a new {thing} can be with you soon.",
)
# The notes say the word in several ways, as reviewers do.
NOTES = (
    "A reader looks for {word} here and finds nothing.",
    "No {word} in it.",
    "We agreed on {word} in every answer.",
    "{word} is missing.",
    "Where is {word}?",
)


def draw_rules(letter: str) -> tuple[str, str]:
    """Draw the opening and the word of a task of the family."""
    i = LETTERS.index(letter)
    openings, words = (
        rng_for(0, "hidden", kind).permutation(list(options)).tolist()
        for kind, options in (("openings", OPENINGS), ("words", WORDS))
    )
    return openings[i], words[i]


def read_rows(letter: str, data: Path, file: str) -> list[Row]:
    """Draw the rows of a split, the same on every machine. `data` is not read."""
    opening, _ = draw_rules(letter)
    rng = rng_for(0, "hidden", letter, file)
    rows: list[Row] = []
    for text, thing in draw_complaints(f"hidden_{letter}", file):
        rest = ANSWERS[int(rng.integers(len(ANSWERS)))].format(thing=thing)
        rows.append({"input": text, "label": f"{opening}, {rest}"})
    return rows


def score_rules(opening: str, word: str, example: Example, response: str) -> Score:
    """Half a point for the opening, half for the word. Only the word gets a note."""
    said, start = _split_words(response), _split_words(opening)
    has_word = word in said
    note = "" if has_word else NOTES[len(example.input) % len(NOTES)].format(word=word)
    return Score(((said[: len(start)] == start) + has_word) / 2, note)


def _split_words(text: str) -> Sequence[str]:
    return re.findall(r"\w+", text.casefold())


TEMPLATES = (
    "Answer the message of the customer.",
    "You work for a shop. Answer customers in a friendly way.",
    "Write a short answer to the complaint.",
    "Read the message and tell the customer what happens next.",
    "Act as customer service and help with the order.",
    "Answer politely and say what the shop will do about the product.",
    "Reply to the customer in one sentence.",
    "Write a formal letter to the customer about the product.",
    "Understand the problem with the order and offer a solution.",
    "You answer messages of customers. Be brief, kind and clear.",
    "Write the answer that a good shop would give.",
    "The customer has a problem with an order. Write a helpful answer.",
)


def make_task(letter: str) -> BenchTask:
    """Make the task hidden_`letter`."""
    return BenchTask(
        name=f"hidden_{letter}",
        seed_prompt="Answer the customer.",
        input="{input}",
        answer="{label}",
        metric=partial(score_rules, *draw_rules(letter)),
        max_tokens=12,
        read=partial(read_rows, letter),
        templates=TEMPLATES,
    )


TASKS = {task.name: task for task in map(make_task, LETTERS)}
PARTNERS = {"hidden_a": "hidden_c", "hidden_b": "hidden_c", "hidden_c": "hidden_a"}
