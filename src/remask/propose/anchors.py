"""Find what the traces say that a prompt lacks: labels, how right answers begin, frequent words.

Anchored masks hold such words fixed, with holes round them, and the library of instructions has
slots for them. Only single words and the beginning that most right answers share are taken, so no
text of one user can get into a prompt this way: where right answers go on with words of the query,
such as a name, only the kind and the place of these words is said. The guard checks the result as
it checks every candidate.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

import numpy as np

from remask.data.redact.redact import PLACEHOLDER
from remask.prompt import Prompt, find_sentences
from remask.propose.edits import find_heading
from remask.propose.evidence import TextIndex, join_feedback
from remask.propose.languages import SMALL_WORDS
from remask.sanitize import split_words
from remask.types import Trace

MAX_LABELS = 12  # with more labels none is an anchor
MIN_OPENING_SHARE = 0.6  # of the right answers that begin with the same words
MAX_OPENING_WORDS = 4
MIN_TRACES = 3  # that must have a word or an opening
MIN_WORD_SHARE = 0.15  # of the traces that must have a word
MIN_WORD_RATIO = 0.5  # of the traces that have a word, to those that have the most frequent one
MAX_WORDS = 12
FILLED_SHARE = 0.75  # of the draws from the library that use what the traces say, where they say anything
WHOLE_SHARE = 0.75  # of the steps that add one more instruction, until all that the traces say is used
RANK_DECAY = 0.6  # factor of a word's probability from one rank of frequency to the next
MIN_SENTENCES = 8  # of a prompt, from which on the feedback says where it is edited
EVEN_SHARE = 0.25  # of the edits of a long prompt that may be anywhere
INSTRUCTIONS = "instructions.txt"


@dataclass(frozen=True, slots=True)
class Hints:
    """What the traces of a round say about a prompt."""

    support: Sequence[float] | None = None  # of each sentence, see maskers.draw_attribution
    labels: tuple[str, ...] = ()  # of the task
    opening: str = ""  # how most right answers begin
    words: tuple[str, ...] = ()  # of right answers and feedback that the prompt lacks, frequent first
    copied: str = ""  # what follows the opening, as in "the name at the end of the message"
    places: tuple[float, ...] | None = None  # probability of each sentence to be edited; None: all equal
    failures: tuple["Failure", ...] = ()  # what single failing traces say, of a long prompt

    def focus(self, rng: np.random.Generator) -> "Hints":
        """Return the hints of one failing trace, drawn at random; all hints where there is none."""
        if not self.failures:
            return self
        failure = self.failures[int(rng.integers(len(self.failures)))]
        return replace(self, places=failure.places, words=failure.words or self.words)

    @property
    def beginning(self) -> str:
        """How most right answers begin, in words for a prompt; "" where it is unknown.

        >>> Hints(opening="Dear", copied="the name in the message").beginning
        '"Dear" and the name in the message'
        """
        quoted = self.opening and f'"{self.opening}"'
        return " and ".join(part for part in (quoted, self.copied) if part)


@dataclass(frozen=True, slots=True)
class Failure:
    """What the feedback of one failing trace says: which sentences it speaks of, and which words it has."""

    places: tuple[float, ...]
    words: tuple[str, ...]  # of those of all traces, so no word of one user alone


def find_failures(traces: Sequence[Trace], prompt: Prompt, labels: Sequence[str] = ()) -> tuple[Failure, ...]:
    """Find which sentences of a long prompt the feedback of each failing trace speaks of.

    Feedback that speaks of none is left out. In a short prompt each place is as good as another.
    """
    units = find_sentences(prompt)
    if len(units) < MIN_SENTENCES:
        return ()
    # A rule that is missing is often about what users ask for, so words of queries count here.
    words = find_missing_words(traces, prompt.text, labels, asked_too=True)
    index = TextIndex.build([f"{find_heading(prompt.text, a)} {prompt.text[a:b]}" for a, b in units])
    found = []
    for trace in traces:
        said = join_feedback(trace) if trace.failing else ""
        matches = index.match(said)
        if total := sum(matches):
            even = EVEN_SHARE / len(units)
            places = tuple(even + (1 - EVEN_SHARE) * value / total for value in matches)
            found.append(Failure(places, tuple(word for word in words if word in said.casefold())))
    return tuple(found)


def find_hints(
    traces: Sequence[Trace], prompt: str, labels: Sequence[str] = (), support: Sequence[float] | None = None
) -> Hints:
    """Find the hints that `traces` give for the prompt."""
    # A prompt that names all labels gains nothing by naming them again.
    lacking = not all(label.casefold() in prompt.casefold() for label in labels)
    allowed = tuple(labels) if lacking and len(labels) <= MAX_LABELS else ()
    opening = "" if labels else find_opening([t.desired for t in traces if t.desired])
    kind, copied = ("", "") if labels else find_copied(traces, opening)
    if (opening or copied) and opening in prompt and kind in prompt:
        opening = copied = ""
    words = find_missing_words(traces, prompt, labels, opening)
    return Hints(support, allowed, opening, words, copied)


def find_opening(answers: Sequence[str]) -> str:
    """Return the longest beginning, in whole words, that most of the right answers share.

    An answer that consists of it alone is a label, and counts as no beginning. It does not end with
    a comma or full stop.

    >>> find_opening(["Dear Anna, thanks.", "Dear Max, sorry.", "Dear Eva, hello."])
    'Dear'
    """
    best = ""
    for words in range(1, MAX_OPENING_WORDS + 1):
        starts = Counter(
            match[0]
            for answer in answers
            if (match := re.match(rf"\S+(?:\s+\S+){{{words - 1}}}(?=\s)", answer))
        )
        if not starts:
            break
        text, n = starts.most_common(1)[0]
        if n < max(MIN_TRACES, MIN_OPENING_SHARE * len(answers)):
            break
        best = text
    return best.rstrip(",;.")


def find_copied(traces: Sequence[Trace], opening: str = "") -> tuple[str, str]:
    """Say what most right answers copy from their query right after `opening`: its kind, and a phrase.

    Returns empty texts where they copy nothing, all copy the same, or it cannot be said which part
    of a query it is. The phrase has no word of a trace.

    >>> asked = [("Hi! Anna", "Dear Anna, no."), ("Hm. Max", "Dear Max, yes."), ("Eva", "Dear Eva,")]
    >>> find_copied([Trace("", query, "", desired) for query, desired in asked], "Dear")
    ('name', 'the name at the end of the message')
    """
    answers = [(t.query, t.desired) for t in traces if t.desired]
    found: list[tuple[str, list[str]]] = []
    for query, answer in answers:
        first = re.match(r"\W*(\w+)", answer.removeprefix(opening))
        said = re.findall(r"\w+", query)
        if first and first[1] in said:
            found.append((first[1], said))
    least = max(MIN_TRACES, MIN_OPENING_SHARE * len(answers))
    if len(found) < least or len({word for word, _ in found}) < MIN_TRACES:
        return "", ""

    def holds(test: Callable[[str, list[str]], bool]) -> bool:
        return sum(test(word, said) for word, said in found) >= MIN_OPENING_SHARE * len(found)

    kind = "word"
    if holds(lambda word, said: any(map(str.isdigit, word))):
        kind = "number"
    elif holds(lambda word, said: word[0].isupper() and len(word) > 1 and word[1:].islower()):
        kind = "name"
    if holds(lambda word, said: word == said[-1]):
        return kind, f"the {kind} at the end of the message"
    if holds(lambda word, said: word == said[0]):  # its capital may be that of the sentence
        return "word", "the first word of the message"
    return ("", "") if kind == "word" else (kind, f"the {kind} in the message")


def find_missing_words(
    traces: Sequence[Trace],
    prompt: str,
    labels: Sequence[str] = (),
    opening: str = "",
    asked_too: bool = False,
) -> tuple[str, ...]:
    """Return words that right answers and feedback often have, and the prompt and most queries lack.

    The most frequent come first. A word of at least three traces is a word of the task, not of one
    user. Numbers, short words, function words and those of `opening` are left out, and words that
    far fewer traces have than the most frequent one. asked_too: also words that queries have as often.
    """
    known = {word.casefold() for text in (prompt, opening, *labels) for word in split_words(text)}
    found, asked, spelling = Counter[str](), Counter[str](), dict[str, str]()
    for trace in traces:
        notes = [note.text for note in trace.feedback if not _lists_all(note.text, labels)]
        answer = [PLACEHOLDER.sub(" ", text) for text in (trace.desired or "", *notes)]
        said = {word.casefold(): word for text in answer for word in re.findall(r"[^\W\d_]{3,}", text)}
        found.update(said.keys())
        asked.update({word.casefold() for word in split_words(trace.query)})
        spelling = said | spelling
    least = max(MIN_TRACES, MIN_WORD_SHARE * len(traces))
    words = {
        word: n
        for word, n in found.most_common()
        if n >= least and (asked_too or n > asked[word]) and word not in known and word not in SMALL_WORDS
    }
    most = max(words.values(), default=0)
    frequent = [word for word, n in words.items() if n >= MIN_WORD_RATIO * most]
    return tuple(spelling[word] for word in frequent[:MAX_WORDS])


def _lists_all(text: str, labels: Sequence[str]) -> bool:
    """Return whether a note lists all labels, as the feedback on an answer without a label does."""
    return bool(labels) and all(label in text for label in labels)


def draw_instruction(hints: Hints, rng: np.random.Generator) -> str:
    """Draw an instruction of the library, most often one that uses what the traces say.

    Where they say several things, most draws add instructions until all of them are used.
    """
    plain, filled = list_instructions(hints, rng)
    if not filled or rng.random() >= FILLED_SHARE:
        return plain[int(rng.integers(len(plain)))]
    lines: list[str] = []
    used: set[str] = set()
    while filled and (not lines or rng.random() < WHOLE_SHARE):
        line, slots = filled[int(rng.integers(len(filled)))]
        lines.append(line)
        used |= slots
        filled = [one for one in filled if not one[1] & used]
    return " ".join(lines)


def list_instructions(
    hints: Hints, rng: np.random.Generator
) -> tuple[list[str], list[tuple[str, frozenset[str]]]]:
    """Return the instructions that suit any task, and those with slots that are known, filled.

    The second ones come with the slots that they fill.
    """
    order = [hints.labels[i] for i in rng.permutation(len(hints.labels))]
    word = draw_words(hints.words, rng, 1)[0] if hints.words else ""
    values = {"labels": ", ".join(order), "beginning": hints.beginning, "word": word}
    plain, filled = [], []
    for line in read_instructions():
        slots = frozenset(re.findall(r"{(\w+)}", line))
        if not slots:
            plain.append(line)
        elif all(values[slot] for slot in slots):
            filled.append((line.format_map(values), slots))
    return plain, filled


def draw_words(words: Sequence[str], rng: np.random.Generator, size: int) -> list[str]:
    """Draw `size` of the words, or all where there are fewer, the first ones most often."""
    weights = RANK_DECAY ** np.arange(len(words))
    size = min(len(words), size)
    return [words[i] for i in rng.choice(len(words), size, replace=False, p=weights / weights.sum())]


@cache
def read_instructions() -> tuple[str, ...]:
    """Return the lines of the library, with their slots."""
    text = (files("remask.propose") / "data" / INSTRUCTIONS).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))
