"""One text in a YAML document: only its characters change, and other readers see the same."""

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.data.json_nodes import Keys, to_plain
from remask.data.trace_record import UnreadableRecord
from remask.data.yaml_nodes import YamlDocument

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
WORDS = st.lists(st.sampled_from(["be", "kind", "# no", ": x", "- a", "é", " ", "\n", "'", '"', "{x}"]))
DOCUMENT = """\
# The agent.  Keep this comment.
%s: 1   # odd key
plain: Be kind and short. # after plain
quoted: 'It''s fine'   # after quotes
double: "a \\"b\\"\\n\\u00e9"
literal: |  # the prompt
    First line.

      indented
    Last line.


# between
folded: >-
  One long
  line.

  Next one.
kept: |+
  x

stripped: |2-
    two more
list:
- first of all
-   "second"
- {flow: inside here, more: [one two, 'b']}
anchored: &text   Shared words here
again: *text
tagged: !!str 123
number: 017
yes: yes
"""
TOP = ("plain", "quoted", "double", "literal", "folded", "kept", "stripped", "anchored", "tagged")
PLACES: list[Keys] = [
    *((name,) for name in TOP),
    *(("list", n) for n in (0, 1)),
    ("list", 2, "flow"),
    *(("list", 2, "more", n) for n in (0, 1)),
]


def replace(document: str, keys: Keys, text: str) -> str:
    found = YamlDocument(document)
    return found.replace(found.find(keys), text)


def put(value: Any, keys: Keys, text: str) -> Any:
    for key in keys[:-1]:
        value = value[key]
    value[keys[-1]] = text


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("ascii", [True, False])
@settings(max_examples=250, deadline=None)
@given(st.sampled_from(PLACES), TEXT | WORDS.map(" ".join) | WORDS.map("".join))
def test_replace_changes_only_the_text(newline: str, ascii: bool, keys: Keys, text: str) -> None:
    document = (DOCUMENT % ("n" if ascii else "ñ")).replace("\n", newline)
    found = YamlDocument(document)
    slot = found.find(keys)
    made = found.replace(slot, text)
    assert YamlDocument(made).find(keys).text == text
    assert made[: slot.start] == document[: slot.start]
    assert made.endswith(document[slot.stop :])
    wanted = yaml.safe_load(document)
    put(wanted, keys, text)
    if keys == ("anchored",):
        wanted["again"] = text
    assert yaml.safe_load(made) == wanted
    assert to_plain(YamlDocument(made).root)["list"] == wanted["list"]


@pytest.mark.parametrize(
    ("old", "text", "new"),
    [
        ("a: Be kind. # c\n", "Be very kind.", "a: Be very kind. # c\n"),
        ("a: Be kind.\n", "yes", 'a: "yes"\n'),
        ("a: Be kind.\n", "Be: kind", 'a: "Be: kind"\n'),
        ("a: Be\n  kind.\nb: 1\n", "Be good now", "a: Be good now\nb: 1\n"),
        ("a: 'x y'\n", "it's", "a: 'it''s'\n"),
        ('a: "x"\n', "é\nü", 'a: "\\xe9\\n\\xfc"\n'),
        ('é: "x"\n', "é\u2028😀", 'é: "é\\u2028😀"\n'),
        ('a: "x"\n', "😀", 'a: "\\U0001f600"\n'),
        ("a: |  # c\n   x\n   y\n\nb: 1\n", "x\nz\n", "a: |  # c\n   x\n   z\n\nb: 1\n"),
        ("a: |\n  x\n\nb: 1\n", "x\nz", "a: |-\n  x\n  z\n\nb: 1\n"),
        ("a: |-\n  x", "z", "a: |-\n  z"),
        ("a: |\n  x\n", " z\ny\n", "a: |2\n   z\n  y\n"),
        ("a: |\n  x\nb: 1\n", "x\n\n\n", "a: |+\n  x\n\n\nb: 1\n"),
        ("a: |\n  x\n", "", 'a: ""'),
        ("a: |\n  x\nb: 1\n", "\t\x07", 'a: "\\t\\u0007"\nb: 1\n'),
        ("- >\n  x y\n", "one\ntwo\n", "- >\n  one\n\n  two\n"),
        (
            f"- >\n  {'word ' * 8}\n",
            f"{'word ' * 12}end\n",
            f"- >\n  {('word ' * 8).strip()}\n  {'word ' * 4}end\n",
        ),
    ],
)
def test_the_style_of_the_old_text_is_kept(old: str, text: str, new: str) -> None:
    keys: Keys = ("a",) if "a:" in old else ("é",) if "é" in old else (0,)
    made = replace(old, keys, text)
    assert made.rstrip("\n") == new.rstrip("\n")


@pytest.mark.parametrize(
    ("document", "keys", "words"),
    [
        ("a: [", ("a",), "malformed YAML"),
        ("a: \x00", ("a",), "malformed YAML"),
        ("a: x\n---\nb: y\n", ("a",), "holds 2 documents; put the one that is meant into its own file"),
        ("", ("a",), "is empty; write a text into it"),
        ("a: *b\n", ("a",), "the alias *b has no anchor"),
        ("a: &b words here\nc: *b\n", ("c",), "/c is an alias of a part elsewhere"),
        ("a: &b {d: words here}\nc: *b\n", ("c", "d"), "is an alias of a part elsewhere"),
        ("a: &b {d: words here}\nc:\n  <<: *b\n", ("c", "d"), "there is no /c/d; /c has <<"),
        ("a: x\na: y\n", ("a",), "the key 'a' appears twice"),
        ("a: 1\n", ("a",), "/a is 1; name a text"),
        ("a:\n", ("a",), "/a is null; name a text"),
        ("a: yes\n", ("a",), "/a is true; name a text"),
        ("a: !secret key\n", ("a",), "/a is null; name a text"),
        ("a: 2001-01-01\n", ("a",), '/a is "2001-01-01"; name a text'),
        ("[" * 3000 + "]" * 3000, (0,), "malformed YAML (nested too deeply); flatten it"),
    ],
)
def test_other_parts_are_refused(document: str, keys: Keys, words: str) -> None:
    with pytest.raises(UnreadableRecord) as caught:
        YamlDocument(document).find(keys)
    assert words in str(caught.value)


def test_a_part_that_holds_itself_is_read_once() -> None:
    value = to_plain(YamlDocument("&a [b, *a, &c {d: *c}]").root)
    assert value[0] == "b" and value[1] is value and value[2]["d"] is value[2]
