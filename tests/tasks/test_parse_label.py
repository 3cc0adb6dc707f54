"""The label of a response is the one that it answers with, in whatever form it is written."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.tasks.metrics import make_grader
from remask.tasks.parse_label import match_label, parse_label, read_number
from remask.types import Example

MOODS = ("positive", "negative", "neutral")
LETTERS = ("A", "B", "C", "D")
STARS = ("1", "2", "3", "4", "5")


@pytest.mark.parametrize(
    ("text", "labels", "label"),
    [
        # forms
        ("cafe\u0301", ("café", "thé"), "café"),
        ("It is the\u0301.", ("café", "thé"), "thé"),
        ("ｐｏｓｉｔｉｖｅ", MOODS, "positive"),
        ("Stars: ５", STARS, "5"),
        ("ﬁne", ("fine", "bad"), "fine"),
        ("x²", ("x2", "x²"), "x²"),
        # numbers
        ("1", ("1.0", "0.0"), "1.0"),
        ("It is 0.", ("1.0", "0.0"), "0.0"),
        ("4.0", STARS, "4"),
        ("4.5", STARS, None),
        ("1000", ("1,000", "2,000"), "1,000"),
        ("0,5", ("0.5", "1.5"), "0.5"),
        ("-1", ("-1", "1"), "-1"),
        ("007", ("7", "8"), None),
        ("\u22121", ("-1", "1"), "-1"),
        ("٣", STARS, "3"),
        ("उत्तर: ५", STARS, "5"),
        ("50 %", ("50%", "5%"), "50%"),
        # characters that are written for others, and separators
        ("don’t", ("don't", "do"), "don't"),
        ("It is non\u2011toxic.", ("toxic", "non-toxic"), "non-toxic"),
        ("This is non toxic.", ("toxic", "non-toxic"), "non-toxic"),
        ("out–of–scope", ("in-scope", "out-of-scope"), "out-of-scope"),
        ("not spam", ("NotSpam", "Spam"), "NotSpam"),
        ("It is not spam.", ("NotSpam", "Spam"), "NotSpam"),
        ("NOTSPAM", ("NotSpam", "Spam"), "NotSpam"),
        ("NotSpam", ("not spam", "spam"), "not spam"),
        ("posi\u00adtive\u200b", MOODS, "positive"),
        ("إيجــابي", ("إيجابي", "سلبي"), "إيجابي"),
        # scales
        ("On a scale of 1-5: 4", STARS, "4"),
        ("On a scale from 1 to 5, I say 2.", STARS, "2"),
        ("4 out of 5", STARS, "4"),
        ("3/5", STARS, "3"),
        ("1-5", STARS, "1"),
        ("Of A–D it is D", LETTERS, "D"),
        # single letters
        ("It is a hard question. The answer is B.", LETTERS, "B"),
        ("It is a hard one. C", LETTERS, "C"),
        ("A good film. B", LETTERS, "B"),
        ("The answer is A.", LETTERS, "A"),
        ("b", LETTERS, "B"),
        ("(C)", LETTERS, "C"),
        ("C) because a cat sits there", LETTERS, "C"),
        # behind a word for the answer
        ("It could be positive. Answer: negative", MOODS, "negative"),
        ("It could be positive.\n**Final answer:** negative", MOODS, "negative"),
        ("Not positive at all, so the correct answer, I think, is negative.", MOODS, "negative"),
        ("Label: negative\nReason: it could be positive", MOODS, "negative"),
        ("First answer: A. On reflection, the final answer is B. A is wrong.", LETTERS, "B"),
        ("A or B? \\boxed{B}", LETTERS, "B"),
        ("Between positive and negative: <answer>negative</answer>", MOODS, "negative"),
        ("Positiv oder negativ? Die Antwort lautet negativ.", ("positiv", "negativ"), "negativ"),
        ("可能是积极的。答案：消极", ("积极", "消极"), "消极"),
        ("A 还是 B？答案是B", LETTERS, "B"),
        ("Answer:\nB", LETTERS, "B"),
        ("positive (not negative)", MOODS, "positive"),
        ("看起来积极，但答案应该是消极。", ("积极", "消极"), "消极"),
        ("긍정처럼 보이지만 정답은 부정입니다.", ("긍정", "부정"), "부정"),
        ("Maybe positive. \\boxed{\\text{negative}}", MOODS, "negative"),
        # on a line of its own, in bold, at the end
        ("It reads positive at first.\n\nnegative", MOODS, "negative"),
        ("It reads positive at first.\n#### Negative.", MOODS, "negative"),
        ("Two stars would be harsh.\n> **4**", STARS, "4"),
        ("positive\nIt is not\nnegative", MOODS, "positive"),
        ("It reads positive at first, but it is **negative**.", MOODS, "negative"),
        ("**positive** words, **negative** meaning", MOODS, "positive"),
        ("It reads positive. Therefore, the review is negative.", MOODS, "negative"),
        ("读起来积极，因此是消极。", ("积极", "消极"), "消极"),
        # JSON
        ('{"reason": "could seem positive", "label": "negative"}', MOODS, "negative"),
        ('```json\n{"thought": "positive", "sentiment": "negative"}\n```', MOODS, "negative"),
        ('Positive? {"why": {"text": "positive"}, "out": {"final_answer": "Negative."}}', MOODS, "negative"),
        ('{"explanation": "positive words", "mood": "negative"}', MOODS, "negative"),
        ('{"reason": "positive", "answer": "unknown"}', MOODS, None),
        ('{"label": 1, "why": "0 is wrong"}', ("1.0", "0.0"), "1.0"),
        ('{"label": true}', ("true", "false"), "true"),
        ('{"label": ["negative"]} {"label": "positive"}', MOODS, "positive"),
        ("{'reason': 'positive?', 'label': 'negative'}", MOODS, "negative"),
        ("{" * 100_000 + "negative", MOODS, "negative"),
    ],
)
def test_parse_label_finds_the_answer(text: str, labels: tuple, label: str | None) -> None:
    assert parse_label(text, labels) == label


@settings(deadline=None)
@given(st.sampled_from(MOODS), st.sampled_from(MOODS), st.booleans())
def test_parse_label_prefers_the_answer_to_other_labels(label: str, other: str, spaced: bool) -> None:
    wide = "".join(chr(ord(c) + 0xFEE0) for c in label)
    for said in (label, label.upper(), wide, unicodedata.normalize("NFD", label)):
        assert parse_label(f"Some words are {other}. The answer is {said}, not {other}.", MOODS) == label
        assert parse_label(json.dumps({"reasoning": other, "label": said}), MOODS) == label


@settings(deadline=None)
@given(st.decimals(-999, 999, places=2))
def test_numbers_match_by_value(value) -> None:
    forms = {str(value), f"{value:f}0", f"{value:f}".replace(".", ",")}
    assert {match_label(form, [str(value)]) for form in forms} == {str(value)}
    assert len({read_number(form) for form in forms}) == 1


def test_label_grader_takes_equal_numbers_for_equal() -> None:
    row = Example("id", "train", "x", "1.0")
    (grade,) = make_grader("label", ["1", "0", "1.0"]).grade([row], ["1"])
    assert grade.score == 1
