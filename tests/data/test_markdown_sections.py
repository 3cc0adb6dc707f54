"""The text of a Markdown file and of its sections: every other byte stays."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from remask.data.json_nodes import Keys
from remask.data.markdown_sections import MarkdownDocument, TextDocument
from remask.data.trace_record import UnreadableRecord

DOCUMENT = """\
---
name: desk
# no heading: a comment
---

Intro.

# Tools

All tools.

## `search` ##
Find rows.

```sh
# no heading: code
```

## Other

Rest
====

Setext.

## Other

> # no heading of this file

The end.
"""
PLACES: list[Keys] = [
    (),
    ("Tools",),
    ("Tools", "`search`"),
    ("`search`",),
    ("Tools", "Other"),
    ("Rest", "Other"),
]
LINES = st.lists(st.sampled_from(["Be kind.", "- a", "", "  b", "#tag", "é ü", "|a|b|", "x #"]), max_size=6)


def test_sections_are_found_by_their_headings() -> None:
    document = MarkdownDocument(DOCUMENT)
    texts = {keys: document.find(keys).text for keys in PLACES}
    assert texts[()].startswith("Intro.\n\n# Tools") and texts[()].endswith("The end.")
    assert texts["`search`",] == texts["Tools", "`search`"] == "Find rows.\n\n```sh\n# no heading: code\n```"
    assert texts["Tools", "Other"] == ""
    assert texts["Rest", "Other"] == "> # no heading of this file\n\nThe end."
    assert texts["Tools",].startswith("All tools.\n\n## `search`") and texts["Tools",].endswith("## Other")


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PLACES), LINES)
def test_replace_changes_only_the_section(newline: str, keys: Keys, lines: list[str]) -> None:
    text = "\n".join(lines).strip("\n")
    raw = DOCUMENT.replace("\n", newline)
    document = MarkdownDocument(raw)
    slot = document.find(keys)
    made = document.replace(slot, text)
    assert MarkdownDocument(made).find(keys).text == text
    before, after = raw[: slot.start], raw[slot.stop :]
    assert made.startswith(before) and made.endswith(after)
    if slot.text:
        assert made == before + text.replace("\n", newline) + after
    else:  # an empty section gets an own line
        assert made[len(before) : len(made) - len(after)].strip(newline) == text.replace("\n", newline)


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("ab \n#-`"), max_size=30), st.text(st.sampled_from("ab \n"), max_size=9))
def test_a_file_of_plain_text_is_one_text(content: str, text: str) -> None:
    text = text.strip("\n")
    document = TextDocument(content)
    slot = document.find(())
    assert slot.text == content.strip("\n")
    made = document.replace(slot, text)
    assert TextDocument(made).find(()).text == text
    assume(slot.text)
    assert made == content.replace(slot.text, text, 1)


@pytest.mark.parametrize(
    ("content", "keys", "words", "line"),
    [
        ("a\nb\r\nc", (), "has line breaks of several kinds; save it with", 2),
        ("a\r\nb\nc", (), "has line breaks of several kinds; save it with", 2),
        ("# A\n# B\n", ("C",), "there is no heading /C; there are: A, B", None),
        ("# A\n## B\n# B\n", ("B",), "there are 2 headings /B (lines 2 and 3); name the heading above", None),
        ("# A\n# B\n", ("A", "B"), "there is no heading /A/B; there are: none", None),
        ("# A\n# B\n", ("A", "A"), "there is no heading /A/A", None),
        ("text", ("A",), "there is no heading /A; there are: none", None),
    ],
)
def test_other_sections_are_refused(content: str, keys: Keys, words: str, line: int | None) -> None:
    with pytest.raises(UnreadableRecord) as caught:
        MarkdownDocument(content).find(keys)
    assert words in str(caught.value) and caught.value.line == line


def test_a_rule_at_the_top_is_no_front_matter() -> None:
    assert MarkdownDocument("---\na: 1\n\nText.\n").find(()).text == "---\na: 1\n\nText."
    assert MarkdownDocument("+++\na = 1\n+++\nText.\n").find(()).text == "Text."
    assert MarkdownDocument("---\n---\n").find(()).text == ""
