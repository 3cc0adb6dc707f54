"""Prompts: frozen regions survive every legal edit; parsing, sentences and diffs lose nothing."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.errors import ConfigError
from remask.prompt import Edit, Prompt, find_frozen_texts, find_sentences, join_components
from remask.runs.word_diff import Change, diff

FROZEN = (
    "{x}",
    "{{x}}",
    "{{ user.name|upper }}",
    "${city}",
    "<name>",
    "</name>",
    "{% if x %}",
    "{% endif %}",
    "{# a note #}",
    "\n```py\nif x: print('hi')\n```\n",
    "\r\n~~~\r\ncode ``` here\r\n~~~\r\n",
    "`inline code`",
    "``a ` b``",
    "https://example.org/a_(b)?q={x}",
    "www.example.org/x",
    "ana.lopez+x@mail.example.org",
    '{"label": "positive", "why": {"a": [1]}}',
    "[[keep]]Never reveal the key.[[/keep]]",
    "[[keep]]{x} and `y`[[/keep]]",
)
PLAIN = (
    "Classify the sentiment.",
    "Répondez brièvement — s'il vous plaît!",
    "请用中文回答。不要太长！",
    "Отвечай кратко.",
    "Use e.g. 3.5 points",
    "\n- first item\n- second item\n",
    "\r\n1. Do this.\r\n2. Do that?\r\n",
    "## Rules\n",
    "a < b and c > d",
    'Hello 👋🏽, it\'s "fine" (really)…',
    "\t",
    "   ",
    "\n\n",
    "?!",
)

sources = st.lists(st.sampled_from(FROZEN + PLAIN), min_size=1, max_size=12).flatmap(
    lambda parts: st.lists(
        st.sampled_from([" ", "\n", "\r\n", ""]), min_size=len(parts), max_size=len(parts)
    ).map(lambda gaps: "".join(a + b for a, b in zip(parts, gaps, strict=True)))
)
fills = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [*FROZEN, *PLAIN, "{", "`", "```", "~~~\n", "<", "{%"]
)


@st.composite
def edited(draw: st.DrawFn) -> tuple[Prompt, list[Edit]]:
    """A prompt and up to four legal edits of it."""
    prompt = Prompt.parse(draw(sources))
    edits: list[Edit] = []
    for start, stop in prompt.editable:
        at = start
        for _ in range(draw(st.integers(0, 2))):
            a = draw(st.integers(at, stop))
            at = draw(st.integers(a, stop))
            edits.append(Edit(a, at, draw(fills)))
    return prompt, edits


@settings(deadline=None, max_examples=1100)
@given(edited())
def test_legal_edits_leave_frozen_text_and_all_other_text_as_it_was(case: tuple[Prompt, list[Edit]]) -> None:
    prompt, edits = case
    after = prompt.apply(edits)
    at = 0
    for text in find_frozen_texts(prompt):
        at = after.text.index(text, at) + len(text)
    assert [after.text[a:b] for a, b in after.kept] == [prompt.text[a:b] for a, b in prompt.kept]
    old = new = 0
    for edit in edits:
        outside = prompt.text[old : edit.start]
        assert after.text[new : new + len(outside)] == outside
        new += len(outside)
        assert after.text[new : new + len(edit.text)] == edit.text
        new += len(edit.text)
        old = edit.stop
    assert after.text[new:] == prompt.text[old:]


@settings(deadline=None, max_examples=150)
@given(sources)
def test_marks_come_back_and_spans_are_in_order(source: str) -> None:
    prompt = Prompt.parse(source)
    assert prompt.to_source() == source
    assert Prompt.parse(prompt.to_source()) == prompt
    assert "[[" not in prompt.text
    spans = sorted([*prompt.frozen, *prompt.editable])
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    covered = {i for a, b in spans for i in range(a, b)}
    assert not any(c.isalpha() for i, c in enumerate(prompt.text) if i not in covered)


@pytest.mark.parametrize("frozen", FROZEN)
def test_each_construct_is_frozen_whole(frozen: str) -> None:
    prompt = Prompt.parse(f"Say hello to {frozen} and be kind.")
    expected = Prompt.parse(frozen).text
    assert "".join(find_frozen_texts(prompt)).strip() == expected.strip()


def test_what_looks_similar_is_not_frozen() -> None:
    text = "If a < b and c > d, pay $5 to me@home: 50% of {this or that. Never write ``` in it."
    assert find_frozen_texts(Prompt(text)) == ("{", "```")


def test_a_fence_that_is_never_closed_freezes_the_rest() -> None:
    prompt = Prompt("Write code.\n```py\nprint(1)\nmore text\n")
    assert find_frozen_texts(prompt) == ("```py\nprint(1)\nmore text\n",)
    assert [prompt.text[a:b] for a, b in prompt.editable] == ["Write code.\n"]


def test_sentence_marks_do_not_belong_to_an_address() -> None:
    prompt = Prompt("See https://a.example/x. Or mail to me@a.example, or (www.b.example).")
    assert find_frozen_texts(prompt) == ("https://a.example/x", "me@a.example", "www.b.example")


def test_variables_in_order_without_repeats_or_pairs_of_tags() -> None:
    text = '<doc>{{ text|trim }}</doc> {b:.2f} {a} {b:.2f} ${c} <name> {0} {} {"k": 1}'
    assert Prompt(text).variables == ("{{ text|trim }}", "{b:.2f}", "{a}", "${c}", "<name>", "{0}")


@pytest.mark.parametrize(
    ("source", "line"),
    [("a\n[[keep]]b", 2), ("a\n\nb[[/keep]]", 3), ("[[keep]]a\n[[keep]]b[[/keep]][[/keep]]", 2)],
)
def test_marks_that_do_not_pair_up_name_their_line(source: str, line: int) -> None:
    with pytest.raises(ConfigError, match=f"prompt line {line}:"):
        Prompt.parse(source)


def test_illegal_edits_are_refused() -> None:
    prompt = Prompt("Say {x} now. Bye.")
    for edit in (Edit(0, 6, "a"), Edit(4, 7, ""), Edit(5, 5, "a"), Edit(2, 99, ""), Edit(-1, 2, "")):
        with pytest.raises(ValueError, match="Edit"):
            prompt.apply([edit])
    with pytest.raises(ValueError, match="overlaps"):
        prompt.apply([Edit(8, 12, "a"), Edit(10, 13, "b")])
    with pytest.raises(ValueError, match="kept span"):
        Prompt("abc", ((2, 9),))
    assert prompt.apply([Edit(4, 4, "A"), Edit(7, 7, "B")]).text == "Say A{x}B now. Bye."


@pytest.mark.parametrize(
    "edit", [Edit(4, 4, "{"), Edit(7, 7, "}"), Edit(7, 7, " ` "), Edit(0, 3, "```\nSay"), Edit(0, 0, "{y}")]
)
def test_frozen_texts_show_edits_that_spoil_their_neighbours(edit: Edit) -> None:
    prompt = Prompt("Say {x} with `code` here.")
    assert find_frozen_texts(prompt.apply([edit])) != find_frozen_texts(prompt)


def test_an_id_covers_text_and_kept_spans() -> None:
    ids = {Prompt("ab").id, Prompt("ac").id, Prompt("ab", ((0, 1),)).id, Prompt("ab", ((0, 2),)).id}
    assert len(ids) == 4
    assert Prompt.parse("[[keep]]a[[/keep]]b").id == Prompt("ab", ((0, 1),)).id


def test_sentences() -> None:
    source = (
        '# Rules\r\n\r\n- Use e.g. Apple or 3.5 kg. Is it?  Yes!\n2) "Be kind." Then stop\n'
        "Answer yes or no. 你好。再见！ Dr. Who…\n{a}, then {b}.\n"
        "* [ ] todo\n[[keep]]No. Way.[[/keep]] end"
    )
    prompt = Prompt.parse(source)
    assert [prompt.text[a:b] for a, b in find_sentences(prompt)] == [
        "Rules",
        "Use e.g. Apple or 3.5 kg.",
        "Is it?",
        "Yes!",
        '"Be kind."',
        "Then stop",
        "Answer yes or no.",
        "你好。",
        "再见！",
        "Dr. Who…",
        "then",
        "todo",
        "end",
    ]


@settings(deadline=None, max_examples=150)
@given(sources)
def test_sentences_are_disjoint_trimmed_and_editable(source: str) -> None:
    prompt = Prompt.parse(source)
    at = 0
    for start, stop in find_sentences(prompt):
        text = prompt.text[start:stop]
        assert at <= start < stop
        assert text == text.strip() and any(c.isalpha() for c in text)
        assert "\n" not in text
        assert any(a <= start and stop <= b for a, b in prompt.editable)
        at = stop


def sides(changes: tuple[Change, ...]) -> tuple[str, str]:
    before = "".join(c.text for c in changes if c.kind != "added")
    after = "".join(c.text for c in changes if c.kind != "removed")
    return before, after


words = st.lists(st.sampled_from(["a", "b", "the", " ", "\n", ". ", ", ", "x. y", "é"]), max_size=30)


@settings(deadline=None, max_examples=400)
@given(words.map("".join) | st.text(max_size=20), words.map("".join) | st.text(max_size=20))
def test_a_diff_loses_nothing(before: str, after: str) -> None:
    changes = diff(before, after)
    assert sides(changes) == (before, after)
    assert all(c.text for c in changes)
    assert all(a.kind != b.kind for a, b in pairwise(changes))


def test_a_diff_is_by_word() -> None:
    assert diff("Classify the sentiment of it.", "Classify the overall mood of it. Be kind.") == (
        Change("same", "Classify the "),
        Change("removed", "sentiment"),
        Change("added", "overall mood"),
        Change("same", " of it."),
        Change("added", " Be kind."),
    )
    assert diff("same", "same") == (Change("same", "same"),)
    assert diff("a b", "a") == (Change("same", "a"), Change("removed", " b"))


@pytest.mark.parametrize("vocabulary", [20, 500, 5000, 20_000])
@pytest.mark.parametrize("stops", [0.0, 0.1])
def test_a_diff_of_20000_words_is_whole(vocabulary: int, stops: float) -> None:
    rng = random.Random(vocabulary)
    old = [f"w{rng.randrange(vocabulary)}{'.' * (rng.random() < stops)}" for _ in range(20_000)]
    new = [word if rng.random() < 0.9 else f"n{rng.randrange(vocabulary)}" for word in old]
    before, after = " ".join(old), " ".join(new)
    changes = diff(before, after)
    assert sides(changes) == (before, after)
    if stops:
        assert sum(len(c.text) for c in changes if c.kind == "same") > 0.8 * len(before)


# --- components

names = st.sampled_from(["system", "tool:f", "reply", "layers[0]", "a b", "tool:f/x"])
bodies = st.sampled_from(["", "Be kind.", "Find\n\n", "Use `code\n", "```\nopen", "{x} it", "\r\nA\r\n"])
programs = st.dictionaries(names, bodies, min_size=1, max_size=4)


@given(programs)
def test_components_come_back_as_they_were_joined(texts):
    prompt = Prompt.parse(join_components(texts))
    assert {name: part.text for name, part in prompt.components.items()} == texts
    assert Prompt.parse(prompt.to_source()) == prompt


@given(programs, st.data())
def test_edits_of_one_component_change_no_other(texts, data):
    prompt = Prompt.parse(join_components(texts))
    editable = prompt.editable
    if not editable:
        return
    start, stop = data.draw(st.sampled_from(editable))
    changed = prompt.apply([Edit(start, stop, "new words")])
    differ = [n for n, part in changed.components.items() if part.text != texts[n]]
    inside = [n for n, (a, b) in prompt.component_spans.items() if a <= start and stop <= b]
    assert list(changed.components) == list(texts)
    assert set(differ) <= set(inside)
    assert len(inside) == 1


@given(programs, names)
def test_replace_components_replaces_only_these(texts, name):
    prompt = Prompt.parse(join_components(texts))
    new = Prompt.parse("It is [[keep]]new[[/keep]].")
    found = prompt.replace_components({name: new}).components
    assert found == {**prompt.components, **({name: new} if name in texts else {})}


def test_a_mark_that_is_no_line_makes_no_component():
    prompt = Prompt.parse("[[component a]] is how a component begins.")
    assert not prompt.components and prompt.editable


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("Hello\n[[component a]]\nb", "line 2: text before the first"),
        ("[[component a\x07]]\nb", "hidden character"),
        ("[[component a]]\nb\n[[component a]]\nc", "two components 'a'"),
        ("[[component a]]\nb [[component c]]", "'a' has the mark"),
        ("[[component a]]\nb\n[[component c]]", "'a' has the mark"),
        ("[[component a]]\nb [[component c]] d", "mark .* in its text; remove it"),
        ("[[component a]]\n[[keep]]b\n[[component c]]\nd[[/keep]]", r"goes on after \[\[component c\]\]"),
    ],
)
def test_components_that_cannot_be_told_apart_are_refused(source, said):
    with pytest.raises(ConfigError, match=said):
        Prompt.parse(source)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({}, "there are no components"),
        ({"": "a"}, "'' cannot name a component"),
        ({"a": "b [[component c]]"}, "'a' has the mark"),
        ({"a\nb": "a"}, "cannot name a component"),
        ({"a\rb": "a"}, "hidden character"),
        ({"tool:a\x1b[31m": "a"}, r"'tool:a\\x1b\[31m' has a mark or a hidden character"),
        ({"a\u202eb": "a"}, "hidden character"),
        ({"[[keep]]a": "a"}, "has a mark"),
        ({"a": 3}, "the component 'a' is int"),
        ({"a": "x\n[[component b]]\ny"}, r"'a' has the mark \[\[component …\]\]; remove it"),
        ({"a": "Write [[component b]] here."}, "'a' has the mark"),
        ({"a": "[[keep]]x"}, "component 'a': .*never closed"),
    ],
)
def test_texts_that_cannot_be_components_are_refused(texts, said):
    with pytest.raises(ConfigError, match=said):
        join_components(texts)
