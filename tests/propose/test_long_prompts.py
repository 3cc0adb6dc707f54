"""Edits of long prompts in Markdown: nothing changes its place, and no table, list or code breaks.

Known answer: Markdown's own parser reads the same lists, tables, headings and blocks before and after.
"""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fakes.scripted_denoiser import ScriptedDenoiser
from remask.prompt import Prompt
from remask.propose.edits import Mask, make_edits
from remask.propose.maskers import MASKERS
from remask.propose.proposer import DiffusionProposer, ProposerConfig

PARSER = MarkdownIt("commonmark").enable("table")
# Rewriting replaces lists as a whole, and attribution needs a model that scores text.
NAMES = tuple(name for name in MASKERS if name not in ("rewrite", "attribution"))
FILLS = (
    "always ask for the reason", "Never promise a date.", "- Offer a refund.", "1. Ask for the number",
    "Ask twice.\nThen answer", "**Note:** be polite", "a | b", "# New rules\nBe kind", "- one\n- two", "wait",
)  # fmt: skip
words = st.lists(
    st.sampled_from(["refund", "order", "parcel", "ask", "answer", "never", "policy"]), min_size=4
)
sentences = words.map(lambda some: " ".join(some[:12]).capitalize() + ".")
texts = st.lists(sentences, min_size=1, max_size=3).map(" ".join)


@st.composite
def draw_list(draw: st.DrawFn, depth: int = 0) -> list[str]:
    """A list whose items may have further lines and lists of their own."""
    mark = draw(st.sampled_from(["-", "*", "+", "1.", "1)", "- [ ]"]))
    found = []
    for number in range(1, draw(st.integers(2, 4)) + 1):
        own = mark.replace("1", str(number))
        found.append(f"{own} {draw(texts)}")
        pad = " " * (len(own.split()[0]) + 1)
        if draw(st.integers(0, 4)) == 0:
            found.append(pad + draw(sentences))
        if depth < 2 and draw(st.integers(0, 3)) == 0:
            found += [pad + line for line in draw(draw_list(depth + 1))]
    return found


BLOCKS = st.one_of(
    texts.map(lambda text: [text]),
    draw_list(),
    draw_list(),
    words.map(lambda some: [f"## {' '.join(some[:3])}"]),
    words.map(lambda some: ["| a | b |", "|---|---|", *(f"| {word} | never ask |" for word in some[:4])]),
    words.map(lambda some: ["```", "- a rule in code", *some[:3], "```"]),
    sentences.map(lambda text: ["<!--", text, "- " + text, "-->"]),
    sentences.map(lambda text: [f"> {text}", "> " + text]),
    sentences.map(lambda text: [f"**{text}**"]),
)
prompts = st.lists(BLOCKS, min_size=20, max_size=60).map(
    lambda blocks: "# Policy\n\n" + "\n\n".join("\n".join(block) for block in blocks)
)


def outline(text: str) -> tuple[Counter[str], list[str]]:
    """How many of each kind of block the parser finds, and what stands in code, comments and tables."""
    tokens = PARSER.parse(text)
    kinds = ("list_open", "table_open", "heading_open", "blockquote_open", "fence", "html_block")
    kept = [token.content for token in tokens if token.type in ("fence", "html_block")]
    rows = [line for line in text.split("\n") if line.lstrip().startswith("|")]
    return Counter(token.type for token in tokens if token.type.endswith(kinds)), kept + rows


def list_order(before: str, after: str) -> tuple[list[str], list[str]]:
    """The lines that each text has once, in the order of both."""
    lines = [text.split("\n") for text in (before, after)]
    counts = [Counter(some) for some in lines]
    once = {line for line, count in counts[0].items() if count == counts[1][line] == 1}
    one, other = ([line for line in some if line in once] for some in lines)
    return one, other


@settings(deadline=None, max_examples=8)
@given(prompts, st.integers(0, 999))
def test_searches_keep_the_outline_of_a_long_prompt(text: str, seed: int) -> None:
    base = parent = Prompt(text)
    recipe = ProposerConfig(NAMES, 4, 4000, 3.0)
    proposer = DiffusionProposer(base, ScriptedDenoiser(FILLS), recipe)
    for generation in range(3):
        for proposal in proposer.propose(parent, (), 6, seed + generation):
            if proposal.violation:
                continue
            new = proposal.prompt.text
            assert outline(new) == outline(text)
            one, other = list_order(text, new)
            assert one == other
            parent = proposal.prompt


@pytest.mark.parametrize(
    ("text", "at", "fill", "expected"),
    [
        ("- a b:\n  - c\n- d", "- a b:", "new", "- a b: New.\n  - c\n- d"),
        ("- a b\n  more\n- d", "- a b", "new", "- a b New.\n  more\n- d"),
        ("1. a b.\n   more\n2. d", "1. a b.", "new", "1. a b. New.\n   more\n2. d"),
        ("- [ ] a b", "- [ ] a b", "new", "- [ ] a b\n- [ ] New."),
        ("  * a b", "  * a b", "new\nthen go", "  * a b\n  * New. then go."),
        ("1) a b", "1) a b", "- new", "1) a b\n2) New."),
        ("Be kind.\n\n**Note:** go", "Be kind.\n\n", "- new", "Be kind.\n\nNew. **Note:** go"),
    ],
)
def test_rule_is_added_with_the_mark_of_its_list_and_parts_no_item(
    text: str, at: str, fill: str, expected: str
) -> None:
    prompt = Prompt(text)
    assert prompt.apply(make_edits(prompt, [Mask(len(at), len(at), 4)], [fill])).text == expected


@pytest.mark.parametrize(
    ("text", "old", "fill", "expected"),
    [
        ("# A\n\nBe kind.\n\n# Pay\n\nGo on.", "Pay", "", None),
        ("- Be kind:\n  - Smile.\n- Go on.", "Be kind:", "", None),
        ("- Be kind.\n- Smile.", "Be kind.", "", "- Smile."),
        ("1. Be kind.\n2. Smile.\n3. Go.", "Smile.", "", "1. Be kind.\n3. Go."),  # others may name rule 3
        ("# A\n\nBe kind. Go.\n\n- Wait.", "Be kind.", "# New\n- go", "# A\n\nNew. go. Go.\n\n- Wait."),
        ("- Be kind.\n  Smile on.\n- Go.", "Smile on.", "- one\n- two", "- Be kind.\n  One\n  two.\n- Go."),
    ],
)
def test_new_text_takes_the_place_of_the_old_and_moves_no_other(
    text: str, old: str, fill: str, expected: str | None
) -> None:
    prompt, at = Prompt(text), re.search(rf"(?<=[\s]){re.escape(old)}", text)
    assert at is not None
    edits = make_edits(prompt, [Mask(*at.span(), 4 if fill else 0)], [fill])
    assert prompt.apply(edits).text == (text if expected is None else expected)
