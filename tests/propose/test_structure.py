"""The structure of a baseline survives every search, and its plain words stay editable."""

import doctest
import unicodedata
from itertools import pairwise

import numpy as np
import pytest
import regex
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fakes.scripted_denoiser import ScriptedDenoiser
from remask.prompt import Prompt, find_sentences, is_boundary
from remask.propose import code_blocks, structure
from remask.propose.anchors import Hints
from remask.propose.edits import Mask, join_parts, make_edits
from remask.propose.maskers import MASKERS
from remask.propose.proposer import DiffusionProposer, ProposerConfig
from remask.propose.structure import hold_like, hold_structure
from remask.types import Trace

LABELS = ("positive", "negative", "no", "A", "B")

# Each is frozen whole between plain words.
STRUCTURE = (
    "| code | reply |\n|------|:-----:|\n| A1 | Offer the refund. |\n| B2 | Ask for a photo. |",
    "code | reply\n--- | ---\nA1 | Offer it.",
    "| a word | another |\n| third | fourth |",
    "name\tcode\nrefund\tA1",
    "+-----+------+\n| one | two  |\n+-----+------+",
    "code,meaning,reply\nA1,refund,Offer\nB2,broken,Ask",
    "Input: The soup was cold and salty.\nOutput: negative",
    "**Review:** The soup\nwas cold.\n**Sentiment:** negative",
    "Q: What is two and two?\nA: four\n\nQ: What is three and one?\nA: four",
    "User: hello there\nAssistant: Hello! What is it?",
    "Eingabe: Die Suppe war kalt.\nAusgabe: schlecht",
    "输入：汤很冷。\n输出：消极",
    "Premise: He sleeps.\nHypothesis: He dreams.\nRelation: neutral\n\n"
    "Premise: He runs.\nHypothesis: He moves.\nRelation: entailed",
    "Examples:\n- the soup was cold\n- a fine evening",
    '## Examples\n\n- "cold soup" -> negative\n- "fine evening" -> positive',
    "Example 1:\nThe soup was cold.\n=> negative",
    "<example>\nThe soup was cold.\nnegative\n</example>",
    "<answer>positive</answer>",
    "<thinking>your thoughts go here</thinking>",
    "Answer: LABEL",
    "Final answer: <the label>",
    "Sentiment: positive/negative",
    '{"type": "object", "a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": "string"}}}}}}}}',
    '["first word", "second word"]',
    '[{"name": "word"}, {"name": "other"}]',
    "{a: {b: {c: {d: {e: {f: {g: word}}}}}}}",
    "search_docs(query)", "get_price(item_id, limit=3)", "run()", "delete_user", "sendEmail", "tools.search",
    "OrderService", "MAX_RETRIES", "--dry-run", "config.yaml", "/etc/hosts/list", "@support", "#general",
    "\\boxed{answer}", "$x^2 + y$", "$$a = b$$", "\\(a + b\\)", "\\begin{align}a\\end{align}",
    "%(name)s", "%s", "%-10.2f", "%USERNAME%", "$company", "$(date)", "$user.name", "[product]",
    "[your name]",
    "<<name>>", "#{name}", "__NAME__", "[the page](https://a.example/b)", "<!-- a note -->",
    '"Answer: yes"', "positive or negative", "Positive, Negative", "A or B",
    "code   meaning\nA1     refund soon\nB2     broken item",
    "interface Out {\n  label: string;\n  score: number;\n}",
    "CREATE TABLE users (\n  id INT,\n  name TEXT\n);",
    "class Out(BaseModel):\n    label: str\n    score: float = 0.5",
    "[server]\nport = 80\nhost = \"my own host\"",
    "The soup was cold = negative\nLovely evening = positive",
    "### Answer\nLABEL",
    "YYYY-MM-DD", "HH:MM:SS", "dd.mm.yyyy", "DD MMM YYYY", "<%= name %>", "[ANSWER]word[/ANSWER]", "[/INST]",
    "^[a-z]+$", "model-v2",
)  # fmt: skip

# Nothing of these is frozen.
PLAIN = (
    "You are a support agent. Answer in the user's language, step by step and/or with care.",
    "Note: be brief.\nImportant: never lie.\nTone: friendly\nRole: You are a helpful assistant.",
    "# Task\nClassify the review.\n\n## Rules\n- Read it twice.\n- Money.\n\n## Output\nReturn one word.",
    "Use at most 3 sentences, i.e. about 50 words. It costs $5 or 50 % more; we pay $10 and you pay $20.",
    "Question: is it good? Decide carefully.",
    "Follow these lines of thought:\nFirst: read it all.\nThen: decide with care about it.",
    "For example, a refund is money. Examples of bugs are crashes.",
    "Add the user(s) and the word(s). At 10am or on the 2nd day, ask again. There is no need to hurry.",
    "Rules:\n    Be kind (always).\n    Use three sentences (or fewer).",
    "You are kind.  Be brief.\nUse plain words.  Keep it short.",
    "-  Be kind.\n-  Be brief.",
    "Score = the quality of the answer from one to five, where five is best.",
    "Write km/h and m/s in words (see below), up-to-date and well-known. ## Answer\nWrite one word only.",
    "请判断情感。回答：请只写一个词。不要解释。",
    "A good review is kind. Write to me@home, e.g. on Monday, and end well.",
)


@pytest.mark.parametrize("text", STRUCTURE)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_structure_is_frozen_whole(text: str, newline: str) -> None:
    inline = "\n" not in text and ": " not in text.partition("<")[0] and "：" not in text
    around = "Be kind with {} today." if inline else "Be kind.\n\n{}\n\nBe brief."
    source = around.format(text).replace("\n", newline)
    prompt = hold_structure(Prompt(source), LABELS)
    at = source.index(text.replace("\n", newline))
    free = [i for a, b in prompt.editable for i in range(a, b) if at <= i < at + len(text)]
    assert not any(source[i].isalnum() for i in free), "".join(source[i] for i in free)
    words = [prompt.text[a:b] for a, b in find_sentences(prompt)]
    assert len(words) == 2 and all(word in source for word in words), words


@pytest.mark.parametrize("text", PLAIN)
def test_plain_words_stay_editable(text: str) -> None:
    prompt = hold_structure(Prompt(text), LABELS)
    assert not prompt.held, [text[a:b] for a, b in prompt.held]


def test_labels_are_frozen_where_the_prompt_names_them() -> None:
    def held(text: str, *labels: str) -> list[str]:
        prompt = hold_structure(Prompt(text), labels)
        return [prompt.text[a:b] for a, b in prompt.held]

    assert held("Say Positive, negative or very good.", "positive", "negative", "very_good") == [
        "Positive, negative or very good"
    ]
    assert held("There is no need. A test. Answer yes or no.", "yes", "no", "A") == ["yes or no"]
    assert held("Say A if a cat sits, and B if not. A dog is B.", "A", "B") == ["A", "B", "A", "B"]
    assert held("只回答“积极”或“消极”，不要解释。", "积极", "消极") == ["积极”或“消极"]
    assert held("Rate positively.", "positive") == []


def test_names_of_tools_with_hyphens_are_frozen_everywhere() -> None:
    text = "Tools: search-docs, get-price and buy-it. Never call delete-user. Use get-price step-by-step."
    prompt = hold_structure(Prompt(text))
    held = [prompt.text[a:b] for a, b in prompt.held]
    assert held == ["search-docs", "get-price", "buy-it", "delete-user", "get-price"]


def test_labels_are_frozen_in_composed_and_decomposed_form() -> None:
    for kind in ("NFC", "NFD"):
        text = unicodedata.normalize(kind, "Say café or thé. Be brief.")
        prompt = hold_structure(Prompt(text), ("café", "thé"))
        assert [prompt.text[a:b] for a, b in prompt.held] == [text[4:].partition(".")[0]]


def test_yaml_below_its_name_is_frozen() -> None:
    text = "Answer in YAML:\nlabel: positive\nitems:\n  - name: word\n    value: 3\n\nBe brief."
    prompt = hold_structure(Prompt(text), LABELS)
    assert [text[a:b] for a, b in prompt.held] == [text[16:-11]]


def test_only_labels_of_a_chinese_line_with_sentences_are_frozen() -> None:
    prompt = hold_structure(Prompt("判断情感：积极或消极。简短回答。"), ("积极", "消极"))
    assert [prompt.text[a:b] for a, b in prompt.held] == ["积极或消极"]


def test_text_of_a_search_stays_editable() -> None:
    base = hold_structure(Prompt("Classify it. Say positive or negative."), LABELS)
    text = "Most words are positive or negative. Answer: LABEL. Classify it. Say positive or negative."
    found = hold_like(Prompt(text), base)
    assert found is not None and [text[a:b] for a, b in found.held] == ["positive or negative"]
    assert found.held[0][0] > text.index("Classify")
    assert hold_like(Prompt("Classify it. Say positive."), base) is None


def test_a_prompt_of_structure_is_extended_at_its_start() -> None:
    prompt = hold_structure(Prompt("Text: {text}\nSentiment:"), LABELS)
    assert prompt.editable == ((0, 0),)
    for name, masker in MASKERS.items():
        masks = masker(prompt, len, np.random.default_rng(1), Hints([]))
        assert [(m.start, m.stop) for m in masks] == [(0, 0)], name
        texts = join_parts(masks, ["read it twice"] * masks[0].holes)
        after = prompt.apply(make_edits(prompt, masks, texts))
        expected = texts[0] if name == "library" else "Read it twice."
        assert after.text == f"{expected}\nText: {{text}}\nSentiment:"


def test_an_empty_prompt_is_extended() -> None:
    proposer = DiffusionProposer(Prompt(""), ScriptedDenoiser(("Be kind.", "be brief")), RECIPE)
    found = proposer.propose(Prompt(""), [Trace("t", "a question", "x", "y", score=0.0)], 5, seed=3)
    assert {p.prompt.text for p in found} >= {"Be kind.", "Be brief."}
    assert not any(p.violation for p in found if p.prompt.text == "Be kind.")


RECIPE = ProposerConfig(tuple(m for m in MASKERS if m != "attribution"), 4, 400, 9.0, labels=LABELS)
PHRASES = (
    "Weigh the words of the message", "Look at the tone of the message.", "negative", "Answer: yes", "",
    "good | bad",
    "positive or negative", "Read it\nonce more", "über", "। ठीक", "好的。",
)  # fmt: skip
pieces = st.sampled_from([*STRUCTURE, *PLAIN])


@settings(deadline=None, max_examples=60)
@given(st.lists(pieces, min_size=1, max_size=6), st.sampled_from(["\n", "\r\n"]), st.integers(0, 999))
def test_searches_keep_structure_over_generations(parts: list[str], newline: str, seed: int) -> None:
    base = Prompt("\n\n".join(parts).replace("\n", newline))
    held = hold_structure(base, LABELS)
    texts = [base.text[a:b] for a, b in held.held]
    assume(held.editable)
    proposer = DiffusionProposer(base, ScriptedDenoiser(PHRASES), RECIPE)
    parent = base
    for generation in range(3):
        for proposal in proposer.propose(parent, (), 4, seed + generation):
            at = 0
            for text in texts:
                assert text in proposal.prompt.text[at:]
                at = proposal.prompt.text.index(text, at) + len(text)
            if "\n" in base.text and newline == "\r\n":
                assert "\n" not in proposal.prompt.text.replace("\r\n", "")
            if not proposal.violation:
                parent = Prompt.parse(proposal.prompt.to_source())


SCRIPTS = (
    "समीक्षा की भावना बताओ। केवल एक शब्द में उत्तर दो।",
    unicodedata.normalize("NFD", "Prüfe die Größe der Wörter. Sei höflich!"),
    "விமர்சனத்தின் உணர்வை வகைப்படுத்து. சுருக்கமாக இரு.", "ตรวจสอบความรู้สึกของข้อความ ตอบสั้น ๆ",
    "قيّم الرِّسالة؟ كُن مُهذّبًا.", "리뷰의 감정을 분류하세요. 짧게.",
    unicodedata.normalize("NFD", "리뷰의 감정을"),
    "レビューの感情を分類してください。一語だけ。",
    "Be kind 👩‍👩‍👧 and 👍🏽 brief 🇩🇪🇫🇷. Press 1️⃣ now.",
    "၁၂၃ မြန်မာစာ ရေးပါ။ တိုတို။",
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(SCRIPTS), st.sampled_from(sorted(MASKERS)), st.integers(0, 999), st.data())
def test_masks_and_edits_keep_letters_whole(text: str, name: str, seed: int, data: st.DataObject) -> None:
    prompt = Prompt(text)
    hints = Hints([1.0] * len(find_sentences(prompt)))
    masks = MASKERS[name](prompt, len, np.random.default_rng(seed), hints)
    assert all(is_boundary(text, edge) for m in masks for edge in (m.start, m.stop))
    letters = st.text(st.sampled_from("aé\u0301\u093e\u200d\ufe0f🏽🇩ᄒ\u1161 .。।"), max_size=6)
    holes = [m.tokens for m in masks for _ in range(m.holes)]
    fills = join_parts(masks, [data.draw(letters | st.sampled_from(PHRASES)) if n else "" for n in holes])
    made = make_edits(prompt, masks, fills)
    after = prompt.apply(made).text
    edges, shift = {0, len(after)}, 0
    for edit in made:
        edges |= {edit.start + shift, edit.start + shift + len(edit.text)}
        shift += len(edit.text) - (edit.stop - edit.start)
        assert not regex.match(r"\p{M}|\u200d", edit.text)
    ends = {0, *(m.end() for m in regex.finditer(r"\X", after))}
    assert edges <= ends


@settings(deadline=None, max_examples=300)
@given(st.text(st.sampled_from("ae\u0301\u093eक\u094d\u200d🏽🇩ᄒ\u1161\r\n {x}`."), max_size=14))
def test_editable_spans_and_sentences_keep_letters_whole(text: str) -> None:
    prompt = Prompt(text)
    for a, b in (*prompt.editable, *find_sentences(prompt)):
        assert is_boundary(text, a) and is_boundary(text, b)
    ends = {0, *(m.end() for m in regex.finditer(r"\X", text))}
    assert {i for i in range(len(text) + 1) if is_boundary(text, i)} == ends


@pytest.mark.parametrize(
    ("text", "old", "fill", "expected"),
    [
        ("レビューを分類。一語で。", "レビューを分類", "Read it.", "Read it。一語で。"),
        ("レビューを分類。一語で。", "レビューを分類。", "読む.。", "読む。一語で。"),
        ("भावना बताओ। एक शब्द।", "भावना बताओ", "ठीक से पढ़ो.", "ठीक से पढ़ो। एक शब्द।"),
        ("भावना बताओ। एक शब्द।", "भावना बताओ।", "ठीक से पढ़ो", "ठीक से पढ़ो। एक शब्द।"),
        ("Be kind. Go.", "Be kind.", "Be good..", "Be good. Go."),
        ("Wait. Go.", "Wait.", "Wait...", "Wait... Go."),
        ("说“好”。走。", "好", "行。", "说“行”。走。"),
    ],
)
def test_edits_leave_no_double_stop(text: str, old: str, fill: str, expected: str) -> None:
    at = text.index(old)
    prompt = Prompt(text)
    assert prompt.apply(make_edits(prompt, [Mask(at, at + len(old), 4)], [fill])).text == expected


def test_edits_end_an_insertion_with_the_stop_of_the_script() -> None:
    for text, fill, expected in (("एक शब्द।", "ठीक है", "एक शब्द। ठीक है।"), ("Be kind!", "go", "Be kind! Go.")):
        prompt = Prompt(text)
        at = len(text)
        assert prompt.apply(make_edits(prompt, [Mask(at, at, 4)], [fill])).text == expected


def test_held_spans_move_with_edits_and_are_no_part_of_the_id() -> None:
    prompt = hold_structure(Prompt("Be kind. Say positive or negative."), LABELS)
    assert prompt.id == Prompt(prompt.text).id and prompt.to_source() == prompt.text
    after = prompt.apply(make_edits(prompt, [Mask(0, 8, 4)], ["Be very kind and good."]))
    assert [after.text[a:b] for a, b in after.held] == ["positive or negative"]
    assert all(a[1] <= b[0] for a, b in pairwise(after.frozen))
    with pytest.raises(ValueError, match="held span"):
        Prompt("abc", (), ((2, 9),))


def test_structure_examples_in_docstrings_hold() -> None:
    for module in (structure, code_blocks):
        found = doctest.testmod(module)
        assert found.attempted and not found.failed
