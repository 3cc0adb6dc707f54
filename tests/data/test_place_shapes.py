"""Texts in files of other tools: after a new text, every other byte is the same and the text is read back."""

import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remask.data.places import read_places, write_places
from remask.errors import DataError

LINES = (
    *(
        "Find a parcel.",
        "- a",
        "# b",
        "key: v",
        " two",
        "  ",
        "end ",
        "\ttab",
        "it's",
        '"q"',
        "é",
        "😀",
        "\\n",
        "{{x}}",
        "%y",
    ),
    *(
        "@a",
        "`c`",
        "|",
        ">",
        "---",
        "...",
        "- [ ] x",
        "*bold* and &y",
        "a #b",
        "",
        "no",
        "1.0",
        "null",
        "x:",
        "!t",
        "===",
        "[a]: b",
    ),
)
WORDS = st.lists(st.sampled_from(LINES), min_size=1, max_size=5).map("\n".join)
TEXT = WORDS | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
OLD = "Gives the place of a “parcel” ☃ for an order number."
SCHEMA = {"type": "object", "properties": {"n": {"type": "number", "description": "A number."}}, "x": 1e22}
MESSAGES = [{"role": "system", "content": "T"}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
JSON_SHAPES: list[tuple[Any, str, str]] = [  # value with the text T, name of the spec, name of the text
    ([{"type": "function", "function": {"name": "f", "description": "T", "parameters": SCHEMA}}],
     "tool:*", "tool:f"),
    ({"functions": [{"name": "f", "parameters": SCHEMA, "description": "T"}]}, "tool:*", "tool:f"),
    ([{"type": "function", "name": "f", "description": "T", "parameters": SCHEMA, "strict": True}], "*", "f"),
    ([{"name": "f", "description": "T", "input_schema": SCHEMA}, {"type": "web_search"}], "*", "f"),
    ({"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "f", "description": "T"}]}}, "*", "f"),
    ({"messages": MESSAGES, "model": "m"}, "*", "system"),
    ({"signature": {"instructions": "T", "fields": []}, "demos": [], "lm": None}, "*", "self"),
    ({"a.predict": {"signature": {"instructions": "T"}}, "b": {"signature": {"instructions": "B"}}},
     "p:*", "p:a.predict"),
    ({"prompts": ["T", {"label": "b", "raw": "B"}], "providers": ["x"]}, "*", "0"),
]  # fmt: skip


def change(folder: Path, name: str, raw: bytes, names: tuple[str, str], new: str) -> bytes:
    """Write a new text into a file; return its bytes. names: of the spec and of the text."""
    file = folder / name
    file.write_bytes(raw)
    spec = {names[0]: name}
    old = read_places(spec, folder)
    write_places(spec, {names[1]: new}, folder, before=old)
    assert read_places(spec, folder) == old | {names[1]: new}
    return file.read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(JSON_SHAPES),
    st.sampled_from([None, 1, 4, 16, "\t"]),
    st.booleans(),
    st.sampled_from(["", "\n", "\r\n", "\n\n  "]),
    st.booleans(),
    TEXT,
)
def test_json_of_other_tools(
    tmp_path: Path, shape: Any, indent: Any, ascii: bool, end: str, mark: bool, new: str
) -> None:
    value, *names = shape
    text = json.dumps(value, indent=indent, ensure_ascii=ascii).replace('"T"', "\0") + end
    text = text.replace("\n", "\r\n") if end == "\r\n" else text
    before, after = ((b"\xef\xbb\xbf" if mark else b"") + text.encode()).split(b"\0")
    raw = before + json.dumps(OLD, ensure_ascii=ascii).encode() + after
    made = change(tmp_path, "a.json", raw, tuple(names), new)
    assert made.startswith(before) and made.endswith(after)
    assert json.loads(made[len(before) : len(made) - len(after)]) == new


YAML_OLD = "Gives the place: of a parcel.\nSay so."
SCALARS = [  # a scalar at two spaces
    "Plain words here  # why",
    "Plain words\n    that go on",
    "'It''s single'",
    "'Single\n    words'",
    '"Double \\u00e9 \\\n    words"  # why',
    "|\n    One: two\n      # three\n\n    four",
    "|-  # why\n    One\n    two",
    "|+\n    One\n\n",
    "|2-\n      One\n    two",
    ">\n    One two\n    three\n\n    four",
    ">-\n    One two",
    ">+  # why\n    One\n\n    two\n\n",
    "!!str 12",
    "&anchor Words behind an anchor",
    "&anchor |\n    Words behind\n    an anchor\n",
]
HEADS = ["", "# first\n", "%YAML 1.1\n---\n", "---\n# é\n", "base: &b {x: 1, y: [a, 'b']}\nmore:\n  <<: *b\n"]
TAILS = [
    "",
    "\n",
    "\n  # last\n",
    "\n  next: [*anchor, 'x']  # all\n",
    "\n# end\nlast: |\n  a\n\n  b\n",
    "\n...\n",
]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(HEADS),
    st.sampled_from(SCALARS),
    st.sampled_from(TAILS),
    st.booleans(),
    st.booleans(),
    TEXT,
)
def test_yaml_of_other_tools(
    tmp_path: Path, head: str, scalar: str, tail: str, windows: bool, mark: bool, new: str
) -> None:
    if "*anchor" in tail and "&anchor" not in scalar:
        tail = tail.replace("*anchor", "a")
    text = f"{head}top:\n  one: 1.0  # x\n  text: {scalar}{tail}"
    text = text.replace("\n", "\r\n") if windows else text
    raw = (b"\xef\xbb\xbf" if mark else b"") + text.encode()
    (tmp_path / "a.yaml").write_bytes(raw)
    place = {"a": "a.yaml#/top/text"}
    old = read_places(place, tmp_path)
    write_places(place, {"a": new}, tmp_path, before=old)
    made = (tmp_path / "a.yaml").read_bytes()
    assert read_places(place, tmp_path) == {"a": new}
    before = raw[: raw.index(b"text: ") + 6]
    assert made.startswith(before)
    wanted = yaml.safe_load(text)
    wanted["top"]["text"] = new
    if "*anchor" in tail:
        wanted["top"]["next"][0] = new
    assert yaml.safe_load(made.decode("utf-8-sig")) == wanted
    for comment in ("# why", "# last", "# all", "# end"):
        assert made.count(comment.encode()) == raw.count(comment.encode()) + new.count(comment)
    if windows:
        assert b"\n" not in made.replace(b"\r\n", b"")


FRONTS = ["", "---\nname: x\n# no heading\n---\n", "+++\na = 1\n+++\n\n"]
BEFORE = [
    "",
    "Intro.\n\n",
    "# Other\n\nText\n\n",
    "```sh\n# Style\nls\n```\n\n",
    "    # Style\n\n",
    "~~~\n## Style\n~~~\n",
]
HEADINGS = ["# Style\n\n", "## Style ##\n", "Style\n=====\n", "Style\n---\n\n\n"]
BODIES = [
    "Be kind.",
    "- a\n- b\n\n```py\n# no heading\n```\n\ntwo",
    "### Inner\n\ntext",
    "> # quoted\n\n1. x",
    "| a | b |\n|---|---|",
]
AFTERS = ["", "\n", "\n\n# Next\n\nBe kind.\n", "\n\nNext\n====\nx", "\n\n\n\n# Style2"]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(*map(st.sampled_from, (FRONTS, BEFORE, HEADINGS, BODIES, AFTERS)), st.booleans(), st.booleans(), TEXT)
def test_sections_of_markdown(
    tmp_path: Path,
    front: str,
    above: str,
    heading: str,
    body: str,
    below: str,
    windows: bool,
    mark: bool,
    new: str,
) -> None:
    before, after = front + above + heading, below
    file, place = tmp_path / "a.md", {"a": "a.md#/Style"}
    raw = [part.replace("\n", "\r\n" if windows else "\n").encode() for part in (before, body, after)]
    bom = b"\xef\xbb\xbf" if mark else b""
    file.write_bytes(bom + b"".join(raw))
    old = read_places(place, tmp_path)
    assert old == {"a": body}
    try:
        write_places(place, {"a": new}, tmp_path, before=old)
    except DataError as error:
        assert "\n" not in str(error)
        assert file.read_bytes() == bom + b"".join(raw)
        return
    made = file.read_bytes()
    assert made.startswith(bom + raw[0]) and made.endswith(raw[2])
    assert read_places(place, tmp_path) == {"a": new.strip("\n")}
