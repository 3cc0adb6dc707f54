"""Group system prompts that differ only in some spans into one template with variables.

Applications insert a name, a date or documents into a prompt before they send it. The template is
what can be optimised. Words are aligned with difflib.SequenceMatcher.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache

MIN_SIMILARITY = 0.6  # SequenceMatcher ratio that a prompt needs to join a template
MIN_FIXED_SHARE = 0.5  # share of a prompt's characters that must stay fixed in its template
MAX_ALIGNED_PROMPTS = 60  # distinct prompts that may change a template; later ones must match one
MAX_ALIGNED_TOKENS = 4000  # longer prompts are not aligned, they are their own template
MAX_COMPARED_PROMPTS = 4096  # system prompts whose comparison with a prompt is cached
MAX_EXAMPLES = 3  # values that are kept of each variable

_PIECE = re.compile(r"\s+|[\w'’-]+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A group of prompts. `pieces` are its fixed texts, with a variable between two of them."""

    pieces: tuple[str, ...]
    count: int  # prompts, with repetitions
    distinct: int
    examples: tuple[tuple[str, ...], ...] = ()  # for each variable, its first values

    @property
    def text(self) -> str:
        """The template with `{variable_1}`, `{variable_2}`, … as variables."""
        parts = [self.pieces[0]]
        for number, piece in enumerate(self.pieces[1:], 1):
            parts += [f"{{variable_{number}}}", piece]
        return "".join(parts)


def find_prompt_templates(prompts: Mapping[str, int]) -> list[PromptTemplate]:
    """Return the templates of `prompts` (text: count), the most frequent first."""
    groups: list[tuple[list[str | None], list[str]]] = []  # (tokens, None for a variable; members)
    ordered = sorted(prompts, key=lambda text: (-prompts[text], text))
    for place, text in enumerate(ordered):
        tokens = _PIECE.findall(text)
        if not _join_group(groups, tokens, text, place < MAX_ALIGNED_PROMPTS):
            groups.append((list(tokens), [text]))
    found = [_build_template(fixed, members, prompts) for fixed, members in groups]
    return sorted(found, key=lambda template: -template.count)


def make_similarity(prompt: str) -> Callable[[str], bool]:
    """Return a test whether a system prompt is `prompt` but for the values of its variables."""

    @lru_cache(maxsize=MAX_COMPARED_PROMPTS)
    def is_similar(text: str) -> bool:
        return len(find_prompt_templates({prompt: 1, text: 1})) == 1

    return is_similar


def _join_group(
    groups: list[tuple[list[str | None], list[str]]], tokens: list[str], text: str, build: bool
) -> bool:
    """Add a prompt to the first group that it fits; return False if there is none."""
    for number, (fixed, members) in enumerate(groups):
        if _match_values(_split_pieces(fixed), text) is not None and None in fixed:
            members.append(text)
            return True
        if not build or max(len(fixed), len(tokens)) > MAX_ALIGNED_TOKENS:
            continue
        merged = _merge_tokens(fixed, tokens)
        if merged is not None:
            groups[number] = (merged, [*members, text])
            return True
    return False


def _merge_tokens(fixed: list[str | None], tokens: list[str]) -> list[str | None] | None:
    """Return the common tokens, with None between them; None if there are too few."""
    matcher = SequenceMatcher(None, fixed, tokens, autojunk=False)
    if matcher.quick_ratio() < MIN_SIMILARITY or matcher.ratio() < MIN_SIMILARITY:
        return None
    merged: list[str | None] = []
    for kind, start, stop, _, _ in matcher.get_opcodes():
        if kind == "equal":
            merged += fixed[start:stop]
        elif not merged or merged[-1] is not None:
            merged.append(None)
    merged = _drop_separators(merged)
    kept = sum(len(token) for token in merged if token is not None)
    whole = sum(len(token) for token in tokens)
    return merged if kept >= MIN_FIXED_SHARE * whole else None


def _drop_separators(tokens: list[str | None]) -> list[str | None]:
    """Merge two variables that have only blanks between them."""
    out: list[str | None] = []
    for place, token in enumerate(tokens):
        between = 0 < place < len(tokens) - 1 and tokens[place + 1] is None and bool(out)
        if token is not None and between and out[-1] is None and not token.strip():
            continue
        if token is not None or not out or out[-1] is not None:
            out.append(token)
    return out


def _split_pieces(tokens: list[str | None]) -> tuple[str, ...]:
    pieces = [""]
    for token in tokens:
        if token is None:
            pieces.append("")
        else:
            pieces[-1] += token
    return tuple(pieces)


def _match_values(pieces: tuple[str, ...], text: str) -> tuple[str, ...] | None:
    """Return the shortest value of each variable in `text`; None if `text` does not match."""
    if len(pieces) == 1:
        return () if pieces[0] == text else None
    if not text.startswith(pieces[0]) or not text.endswith(pieces[-1]):
        return None
    end = len(text) - len(pieces[-1])
    place = len(pieces[0])
    values = []
    for piece in pieces[1:-1]:
        found = text.find(piece, place, end)
        if found < 0:
            return None
        values.append(text[place:found])
        place = found + len(piece)
    return None if place > end else (*values, text[place:end])


def _build_template(
    fixed: list[str | None], members: list[str], prompts: Mapping[str, int]
) -> PromptTemplate:
    pieces = _split_pieces(fixed)
    values = [v for text in members if (v := _match_values(pieces, text)) is not None]
    examples = tuple(tuple(dict.fromkeys(column))[:MAX_EXAMPLES] for column in zip(*values, strict=True))
    count = sum(prompts[text] for text in members)
    return PromptTemplate(pieces, count, len(members), examples)
