"""Prompts that differ much from each other, to see whether the prompt of a task matters at all.

They change only what an optimisation may change: frozen text, such as variables and [[keep]]
regions, stays in its place. Their words come from the prompt or from the library of instructions,
which suits any task.
"""

from collections.abc import Sequence

from remask.prompt import Edit, Prompt, find_sentences
from remask.propose.anchors import MAX_LABELS

LABELS = "{labels}"  # a slot of the library
# Lines of the library (data/instructions.txt) that ask for different answers, by the name of the
# prompt that consists of them.
FROM_LIBRARY = (
    ("names the labels", "Answer with one of these labels: {labels}."),
    ("asks for short answers", "Do not explain your answer. Keep the answer short."),
    ("asks for long answers", "Look at each part of the text before you decide. Write in full sentences."),
)


def make_pilot_prompts(start: Prompt, labels: Sequence[str] = ()) -> list[tuple[str, Prompt]]:
    """Return up to six prompts with a name each, yours first. No two have the same text.

    labels: of the task; with none, or too many to list, no prompt names them.
    """
    sentences = find_sentences(start)
    found = [("your prompt", start)]
    if len(sentences) > 1:
        dropped = (Edit(first, stop, "") for first, stop in sentences[1::2])
        found.append(("your prompt without every second sentence", start.apply(dropped)))
    found.append(("no text", _rewrite(start, "")))
    for name, text in FROM_LIBRARY:
        if LABELS not in text:
            found.append((name, _rewrite(start, text)))
        elif 0 < len(labels) <= MAX_LABELS:
            found.append((name, _rewrite(start, text.replace(LABELS, ", ".join(labels)))))
    first: dict[str, tuple[str, Prompt]] = {}
    for name, prompt in found:
        first.setdefault(" ".join(prompt.text.split()), (name, prompt))
    return list(first.values())


def _rewrite(start: Prompt, text: str) -> Prompt:
    """Replace all that may be edited: the first editable part by `text`, the others by nothing."""
    edits = []
    for number, (first, stop) in enumerate(start.editable):
        before = "\n" if first else ""
        after = "\n" if stop < len(start.text) else ""
        edits.append(Edit(first, stop, f"{before}{'' if number else text}{after}"))
    return start.apply(edits)
