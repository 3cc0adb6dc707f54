"""Maskers draw legal holes of elastic lengths, and fills become edits that read naturally."""

import doctest
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.errors import ConfigError
from remask.ports import Hole
from remask.prompt import Prompt, find_sentences
from remask.propose import edits
from remask.propose.anchors import Hints
from remask.propose.edits import Mask, join_parts, make_canvas, make_edits
from remask.propose.maskers import MASKERS, MAX_CANVAS_TOKENS, MAX_HOLE_TOKENS

SHORT = Prompt("Classify the sentiment of the sentence.")
SUPPORT = Prompt.parse(
    "You are a support agent of {company}. Be kind and brief.\n\n"
    "## Rules\n\n- Answer in the language of the user.\n- Never promise a refund.\n"
    "- Link to https://help.example.com when asked.\n\n"
    "1. Read the message.\n2. Choose one label.\n\n"
    "[[keep]]Reply with one of: billing, bug, other.[[/keep]] Thank the user <name>."
)


LABELS = ("very positive", "mixed", "negative")


def count(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def draw(name: str, prompt: Prompt, seed: int) -> tuple[Mask, ...]:
    rng = np.random.default_rng(seed)
    support = [float(i % 5) for i in range(len(find_sentences(prompt)))]
    return MASKERS[name](prompt, count, rng, Hints(support, LABELS, "Dear", ("receipt", "invoice")))


def draw_without_labels(name: str, seed: int) -> tuple[Mask, ...]:
    hints = Hints(opening="Dear", words=("receipt", "invoice"), copied="the name in the message")
    return MASKERS[name](SHORT, count, np.random.default_rng(seed), hints)


pieces = st.sampled_from(
    [
        "Classify the sentiment.",
        "Be kind, brief and honest!",
        "{x}",
        "`code`",
        "<name>",
        "https://a.example/b",
        "\n- item one\n- item two\n",
        "\n## Title\n",
        "\r\n1. Do this.\r\n2. Do that.\r\n",
        "[[keep]]Stay.[[/keep]]",
        "你好。再见！",
        "\n\n",
        "(aside), and more",
        "émigré «words» here…",
        "```\ncode\n```\n",
        "One two three four five six seven eight nine ten eleven twelve thirteen. " * 6,
    ]
)
prompts = st.lists(pieces, min_size=1, max_size=10).map(" ".join).map(Prompt.parse)
fills = st.sampled_from(
    ["", " ", "new words", "Full sentence.", ", and then", " a  b\n\n\n\nc ", "ends;", "?", "über", "好的。"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=10)


@pytest.mark.parametrize("name", MASKERS)
@settings(deadline=None, max_examples=120)
@given(prompt=prompts, seed=st.integers(0, 10_000), data=st.data())
def test_maskers_draw_legal_masks_and_edits_keep_frozen_text(
    name: str, prompt: Prompt, seed: int, data: st.DataObject
) -> None:
    if not prompt.editable:
        with pytest.raises(ConfigError, match="no editable text"):
            draw(name, prompt, seed)
        return
    masks = draw(name, prompt, seed)
    assert masks == draw(name, prompt, seed)
    assert masks
    assert all(a.stop <= b.start for a, b in pairwise(masks))
    for mask in masks:
        assert any(a <= mask.start <= mask.stop <= b for a, b in prompt.editable)
        assert mask.parts or mask.tokens == 0 or 2 <= mask.tokens <= MAX_HOLE_TOKENS
        assert not mask.parts or mask.tokens == sum(p for p in mask.parts if isinstance(p, int))
    assert sum(mask.tokens for mask in masks) <= MAX_CANVAS_TOKENS
    parts = make_canvas(prompt, masks)
    if not any(mask.parts for mask in masks):
        assert "".join(p.old if isinstance(p, Hole) else p for p in parts) == prompt.text
    holes = [p.tokens for p in parts if isinstance(p, Hole)]
    assert len(holes) == sum(m.holes for m in masks) and sum(holes) == sum(m.tokens for m in masks)
    texts = [data.draw(fills) for _ in holes]
    made = make_edits(prompt, masks, join_parts(masks, texts))
    after = prompt.apply(made)
    for mask in masks:
        anchors = [part for part in mask.parts if isinstance(part, str)]
        assert all(
            anchor.lstrip(" ")[1:] in after.text for anchor in anchors
        )  # the first letter may be a capital
    at = 0
    for start, stop in prompt.frozen:
        frozen = prompt.text[start:stop]
        at = after.text.index(frozen, at) + len(frozen)


@pytest.mark.parametrize("name", MASKERS)
@pytest.mark.parametrize("prompt", [SHORT, SUPPORT])
def test_maskers_never_delete_everything(name: str, prompt: Prompt) -> None:
    for seed in range(300):
        masks = draw(name, prompt, seed)
        texts = ["word" if m.tokens else "" for m in masks for _ in range(m.holes)]
        after = prompt.apply(make_edits(prompt, masks, join_parts(masks, texts)))
        assert any(after.text[a:b].strip() for a, b in after.editable)


def test_masker_lengths_vary_and_deletions_are_rare() -> None:
    drawn = [m for seed in range(1500) for m in draw("sentence", SUPPORT, seed)]
    ratios = Counter(round(m.tokens / count(SUPPORT.text[m.start : m.stop]), 1) for m in drawn if m.tokens)
    assert min(ratios) <= 0.6 and max(ratios) == 4.0 and len(ratios) > 6
    assert 0.04 < sum(m.tokens == 0 for m in drawn) / len(drawn) < 0.10
    assert {m.tokens for s in range(60) for m in draw("rewrite", SHORT, s)} >= {4, 7, 14, 28}


def test_masker_span_stays_inside_a_sentence() -> None:
    lengths = []
    for seed in range(400):
        masks = draw("span", SUPPORT, seed)
        assert 1 <= len(masks) <= 3
        for mask in masks:
            text = SUPPORT.text[mask.start : mask.stop]
            assert text[0].isalnum() and text[-1].isalnum()
            assert any(a <= mask.start and mask.stop <= b for a, b in find_sentences(SUPPORT))
            lengths.append(len(text.split()))
    assert min(lengths) == 1 and max(lengths) > 4


def test_maskers_sentence_and_insert_reach_every_place() -> None:
    hit = {(m.start, m.stop) for seed in range(400) for m in draw("sentence", SUPPORT, seed)}
    assert hit == set(find_sentences(SUPPORT))
    drawn = {draw("insert", SUPPORT, seed)[0].start for seed in range(400)}
    assert [SUPPORT.text[max(0, at - 12) : at] for at in sorted(drawn)] == [
        "",
        " {company}. ",
        "d and brief.",
        "## Rules\n\n- ",
        "of the user.",
        "se a refund.",
        " when asked.",
        "the message.",
        "e one label.",
        "bug, other. ",
    ]
    holes = [draw("insert", SHORT, seed)[0] for seed in range(100)]
    assert {h.start for h in holes} == {0, len(SHORT.text)}
    assert all(h.start == h.stop and 6 <= h.tokens <= 24 for h in holes)


@pytest.mark.parametrize("name", ["sentence", "attribution"])
def test_maskers_insert_next_to_a_single_sentence(name: str) -> None:
    for seed in range(50):
        masks = MASKERS[name](SHORT, count, np.random.default_rng(seed), Hints([0.0]))
        assert masks == draw("insert", SHORT, seed)


def test_masker_attribution_prefers_the_least_supported_sentence() -> None:
    support = [3.0, 2.0, 9.0, -4.0, 5.0, 1.0, 8.0, 7.0, 6.0, 4.0][: len(find_sentences(SUPPORT))]
    support += [10.0] * (len(find_sentences(SUPPORT)) - len(support))
    hits: Counter[int] = Counter()
    for seed in range(600):
        for mask in MASKERS["attribution"](SUPPORT, count, np.random.default_rng(seed), Hints(support)):
            hits[find_sentences(SUPPORT).index((mask.start, mask.stop))] += 1
    assert hits.most_common(1)[0][0] == 3
    assert hits[5] > hits[0] > hits[2] and len(hits) > 5
    with pytest.raises(ConfigError, match="local model that can score"):
        MASKERS["attribution"](SUPPORT, count, np.random.default_rng(0), Hints())
    with pytest.raises(ValueError, match="1 support values"):
        MASKERS["attribution"](SUPPORT, count, np.random.default_rng(0), Hints([1.0]))


def test_masker_anchor_writes_labels_opening_or_words_between_holes() -> None:
    kinds = set()
    for seed in range(200):
        (mask,) = draw("anchor", SHORT, seed)
        assert mask.start == mask.stop and isinstance(mask.parts[0], int)
        anchors = tuple(part for part in mask.parts if isinstance(part, str))
        assert mask.holes in (len(anchors), len(anchors) + 1)
        listed = len(anchors) == 1 and set(re.split(", | or ", anchors[0])) == set(LABELS)
        kinds.add("list" if listed else "labels" if set(anchors) == set(LABELS) else anchors)
    assert kinds >= {
        "list",
        "labels",
        ("Dear",),
        ('"Dear"',),
        ("receipt",),
        ("receipt", "invoice"),
        ("invoice", "receipt"),
    }
    rng = np.random.default_rng(0)
    assert not MASKERS["anchor"](SHORT, count, rng, Hints())[0].parts  # an insertion


def test_masker_anchor_joins_a_beginning_with_missing_words() -> None:
    drawn = [draw_without_labels("anchor", seed)[0].parts for seed in range(200)]
    kinds = {tuple(part for part in parts if isinstance(part, str)) for parts in drawn}
    assert kinds >= {("Dear",), ('"Dear" and the name in the message', "receipt"), ("invoice", "Dear")}


def test_masker_library_inserts_whole_sentences_with_labels() -> None:
    texts = set()
    for seed in range(300):
        masks = draw("library", SHORT, seed)
        assert masks[0].holes == 0
        texts.add(SHORT.apply(make_edits(SHORT, masks, join_parts(masks, []))).text)
    assert any('Begin your answer with "Dear".' in text for text in texts)
    assert any("The answer is one of negative, very positive, mixed." in text for text in texts)
    assert not any("{" in text for text in texts)


def test_masker_library_says_what_the_traces_say_in_three_draws_of_four() -> None:
    texts = [draw_without_labels("library", seed)[0].parts[0] for seed in range(300)]
    filled = [text for text in texts if re.search("Dear|receipt|invoice", str(text))]
    assert 180 < len(filled) < 270
    assert any(re.search(r"Dear.*\. .*receipt", str(text)) for text in filled), "one for each of two things"
    assert 'Begin your answer with "Dear" and the name in the message.' in texts


def test_masker_delete_only_deletes() -> None:
    for prompt in (SHORT, SUPPORT):
        for seed in range(60):
            masks = draw("delete", prompt, seed)
            if len(find_sentences(prompt)) == 1 and masks[0].tokens:
                continue  # the run was the whole sentence, so it inserts
            assert all(mask.tokens == 0 for mask in masks)
            assert len(prompt.apply(make_edits(prompt, masks, [""] * len(masks))).text) < len(prompt.text)


def test_maskers_need_editable_text() -> None:
    for name in MASKERS:
        with pytest.raises(ConfigError, match="the prompt has no editable text"):
            draw(name, Prompt.parse("{x} `code` -- [[keep]]Keep me.[[/keep]]"), 0)


def test_masker_rewrite_limits_the_holes_of_a_canvas() -> None:
    prompt = Prompt(" ".join(f"{{v{i}}} and some more words {i}," for i in range(80)))
    for seed in range(5):
        masks = draw("rewrite", prompt, seed)
        assert sum(m.tokens for m in masks) <= MAX_CANVAS_TOKENS
        assert all(m.tokens == 0 or m.tokens >= 2 for m in masks)


def put(text: str, *changes: tuple[str, str]) -> str:
    """`text` with each old part (as its mask) written anew; "|" + context inserts before it."""
    prompt, masks = Prompt.parse(text), []
    for old, _ in changes:
        if old.startswith("|"):
            at = prompt.text.index(old[1:]) if old[1:] else len(prompt.text)
            masks.append(Mask(at, at, 8))
        elif old.endswith("|"):
            at = prompt.text.index(old[:-1]) + len(old) - 1
            masks.append(Mask(at, at, 8))
        else:
            at = prompt.text.index(old)
            masks.append(Mask(at, at + len(old), 8))
    return prompt.apply(make_edits(prompt, masks, [new for _, new in changes])).text


@pytest.mark.parametrize(
    ("text", "changes", "expected"),
    [
        # replacements
        ("Be brief. Be kind.", [("Be kind.", " stay  polite ")], "Be brief. Stay polite."),
        ("Be brief. Be kind.", [("brief", "short.")], "Be short. Be kind."),
        ("Say it, then go.", [("it", "this,")], "Say this, then go."),
        ("Say it now.", [("it", ", that")], "Say that now."),
        ("be brief.", [("be brief.", "stay short.")], "stay short."),
        ("Be brief. Go.", [("Be brief.", "Why?")], "Why? Go."),
        ("A b.\nC d.", [("A b.", "one \r\n  two")], "One\ntwo.\nC d."),
        # deletions
        ("Be brief. Be kind. Go.", [("Be kind.", "")], "Be brief. Go."),
        ("Be brief. Be kind.", [("Be kind.", "")], "Be brief."),
        ("Be brief. Be kind.", [("Be brief.", "")], "Be kind."),
        ("Be very kind now.", [("now", "")], "Be very kind."),
        ("Be very kind now.", [("very", "")], "Be kind now."),
        ("Please be kind.", [("Please", "")], "Be kind."),
        ("Hello, be kind.", [("Hello", "")], "Be kind."),
        ("A b. C d. E f.", [("A b.", ""), ("C d.", "")], "E f."),
        ("A b. C d. E f.", [("C d.", ""), ("E f.", "")], "A b."),
        ("A b. C d. E f.", [("C d.", "New"), ("E f.", "")], "A b. New."),
        ("- a\n- b\n- c\n", [("b", "")], "- a\n- c\n"),
        ("- a\n- b", [("b", "")], "- a"),
        ("Top.\n\n## Old\n\nText.", [("Old", "")], "Top.\n\nText."),
        ("Use {x} and {y}.", [("and", "")], "Use {x} {y}."),
        ("Yes, or no, go.", [("or no", "")], "Yes, go."),
        # insertions
        ("Be brief. Go.", [("brief.|", "be kind")], "Be brief. Be kind. Go."),
        ("Be brief.", [("brief.|", "Be kind.")], "Be brief. Be kind."),
        ("Be brief.", [("|Be", "be kind")], "Be kind. Be brief."),
        ("Be brief.", [("|Be", "  ")], "Be brief."),
        ("- a b\n- c d\n", [("a b|", "new")], "- a b\n- New.\n- c d\n"),
        ("- a b\n- c d\n", [("|a b", "new")], "- New.\n- a b\n- c d\n"),
        ("- a b\n- c d", [("c d|", "new")], "- a b\n- c d\n- New."),
        ("- a b\n- c d", [("c d|", "- new\n- more")], "- a b\n- c d\n- New\n- more."),
        ("- a b\n- c d", [("c d", "* new")], "- a b\n- new"),
        ("1. a b\n2. c d", [("c d|", "new.")], "1. a b\n2. c d\n3. New."),
        ("1. a b.\n2. c d", [("a b.|", "new.")], "1. a b. New.\n2. c d"),
        ("# Title\n\nText.", [("Title|", "new")], "# Title\nNew.\n\nText."),
        ("你好。再见。", [("你好。|", "谢谢")], "你好。谢谢。再见。"),
    ],
)
def test_make_edits_joins_fills_with_the_text(
    text: str, changes: list[tuple[str, str]], expected: str
) -> None:
    assert put(text, *changes) == expected


@settings(deadline=None, max_examples=600)
@given(st.integers(0, 10_000), st.sampled_from(["sentence", "span", "rewrite"]))
def test_make_edits_leaves_no_double_space_or_empty_list_item(seed: int, name: str) -> None:
    masks = draw(name, SUPPORT, seed)
    after = SUPPORT.apply(make_edits(SUPPORT, masks, [""] * len(masks))).text
    assert "  " not in after
    assert not re.search(r" [.,]|\n\n\n|^- *$|\.\.", after, re.MULTILINE)
    assert after == after.strip()


def test_maskers_work_with_the_builtin_tokenizer() -> None:
    weights = pytest.importorskip("remask.models.backbone.builtin_weights")
    backbone = weights.load_base()
    support = [0.0] * len(find_sentences(SUPPORT))
    for name, masker in MASKERS.items():
        masks = masker(SUPPORT, lambda t: len(backbone.encode(t)), np.random.default_rng(1), Hints(support))
        assert masks and sum(m.tokens for m in masks) <= MAX_CANVAS_TOKENS, name


def test_edits_examples_in_docstrings_hold() -> None:
    found = doctest.testmod(edits)
    assert found.attempted > 15 and not found.failed
