"""The prompts of a pilot: very different, of the library's words, and with all frozen text."""

import pytest

from remask.prompt import Prompt, find_frozen_texts
from remask.propose.anchors import read_instructions
from remask.propose.pilot_prompts import FROM_LIBRARY, make_pilot_prompts

LABELS = ("positive", "negative")


@pytest.mark.parametrize(
    "source",
    [
        "Classify {text}. Be brief. Never guess.",
        "Text: {{ text }}\nIs it good?",
        "[[keep]]Never guess.[[/keep]] Classify.",
        "",
        "Ordne die Nachricht ein. Antworte mit einem Wort.",
        "把消息分类。只回答标签。",
    ],
)
def test_pilot_prompts_differ_and_keep_all_frozen_text(source: str) -> None:
    start = Prompt.parse(source)
    found = make_pilot_prompts(start, LABELS)
    assert found[0] == ("your prompt", start)
    assert 4 <= len(found) <= 6
    assert len({prompt.text for _, prompt in found}) == len({name for name, _ in found}) == len(found)
    assert {find_frozen_texts(prompt) for _, prompt in found} == {find_frozen_texts(start)}


def test_pilot_prompt_names_the_labels_where_there_are_few() -> None:
    texts = [prompt.text for _, prompt in make_pilot_prompts(Prompt("Sort it."), LABELS)]
    assert "Answer with one of these labels: positive, negative." in texts
    many = [f"label {i}" for i in range(40)]
    for labels in ((), many):
        found = dict(make_pilot_prompts(Prompt("Sort it."), labels))
        assert "names the labels" not in found and len(found) == 4


def test_half_of_the_sentences_are_left_out() -> None:
    found = dict(make_pilot_prompts(Prompt("One is here. Two is here. Three is here. Four is here.")))
    half = found["your prompt without every second sentence"].text
    assert ("One" in half, "Two" in half, "Three" in half, "Four" in half) == (True, False, True, False)


def test_lines_of_the_pilot_stand_in_the_library() -> None:
    library = " ".join(read_instructions())
    for _, text in FROM_LIBRARY:
        assert all(f"{line.rstrip('.')}." in library for line in text.split(". "))
