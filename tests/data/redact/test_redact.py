"""Redaction: a thousand secrets of forty kinds are replaced, ordinary texts do not change."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.plantings import KEYS, NAMED, Rng, pieces, planted
from remask.data.redact.personal_data import PERSONAL_RULES
from remask.data.redact.redact import Placeholders, redact_text
from remask.data.redact.secrets import NAMED_RULES, RANDOM_RULES, TOKEN_RULES, SecretRule


def test_redact_text_replaces_a_thousand_secrets() -> None:
    cases = planted()
    assert len(cases) > 1000
    assert len(KEYS) + len(NAMED) > 50
    names = Placeholders()
    left = []
    for kind, text, it in cases:
        after = redact_text(text, names)
        if "<" not in after or any(piece in after for piece in pieces(it)):
            left.append((kind, text, after))
    assert not left, left[:20]


ORDINARY = """\
My order 4500123456789 has not arrived, order number 20240517-883.
Invoice INV-2024-00017 of 12.05.2024 over 1,299.00 EUR is wrong.
The parcel 1Z999AA10123456784 left on 2024-05-12T10:31:05.123Z.
We met on 01/02/2024 10:30, not on 03-04-2024 11:00.
Python 3.11.4, version 10.0.19045.3570, build 1.24.301.7, see section 4.2.1.3 or v12.20.3.1.
Commit 9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f00 broke it.
sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 matches.
Request id 123e4567-e89b-42d3-a456-426614174000 failed.
It costs $1,000,000 or 10 000 000 yen, that is 5-10 % more.
Room 101, 2nd floor, seats 200 300, code 4711.
The EAN is 4006381333931 and the ISBN 978-3-16-148410-0.
The time was 12:30:45 and the ratio 16:9:4.
std::vector<int> and Foo::Bar::baz() do not compile.
Set max_tokens: 4096 and temperature=0.7, top_k=50.
max_tokens=100000000 is too much, token_count: 123456789.
The password is incorrect. Password: please reset it. Forgot password?
password: {password}, api_key=YOUR_API_KEY, token=${TOKEN}, secret: <SECRET>.
Dear {name}, your order <ORDER_ID> and {{ user.email }} are noted.
postgres://{user}:{password}@{host}/db and https://$USER:$PASS@host/x
os.environ["OPENAI_API_KEY"], client = OpenAI(api_key=settings.key)
sk-learn and scikit-learn, task-oriented-dialogue-systems-evaluation
pip install numpy@1.26.4 or logo@2x.png; git clone git@github.com:a/b.git
@ann said hi @ 5 pm; a@b is no address.
The server runs on localhost, 127.0.0.1 or 0.0.0.0, port 8080; the DNS is 8.8.8.8.
MAC 00:1b:44:11:3a:b7 is fine.
https://example.com/a/very/long/path/with-many-words/and_more_words/index.html?x=1&y=2
C:\\Users\\me\\Documents\\VeryLongFolderName\\AnotherLongFolderName\\file.txt
thisIsAVeryLongCamelCaseIdentifierName and a_very_long_snake_case_name_of_a_function_2
ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKL and aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
The reservation is 4WQ150 and the user id mia_li_3668; flight HAT136 at 2024-05-15.
Secret santa: bring gifts. The token: see below. Authorization: required.
Basic English, bearer of bad news, the key is under the mat.
Call me at noon or phone the office. My phone is an iPhone 15. Telephone line 2.
phone model 2024.10.12 and mobile app 3.1.4
我的订单号是 20240517883001，请尽快处理，谢谢。"""


@pytest.mark.parametrize("text", ORDINARY.split("\n"))
def test_redact_text_keeps_ordinary_text(text: str) -> None:
    assert redact_text(text, Placeholders()) == text


def test_placeholders_are_stable_and_distinct() -> None:
    names = Placeholders()
    assert redact_text("Mail a@b.com or c@d.com!", names) == "Mail <EMAIL_1> or <EMAIL_2>!"
    assert redact_text("ann.lee@x.de and annlee@x.de", Placeholders()) == "<EMAIL_1> and <EMAIL_2>"
    assert redact_text("c@d.com, A@B.com; +49 170 1234567", names) == "<EMAIL_2>, <EMAIL_1>; <PHONE_1>"
    assert redact_text("+491701234567 / 10.20.30.40", names) == "<PHONE_1> / <IP_1>"
    assert names.counts == {"EMAIL": 2, "PHONE": 1, "IP": 1}


def test_redact_text_replaces_only_the_secret() -> None:
    names = Placeholders()
    key = KEYS["GitHub classic"](Rng(1))
    assert redact_text(f'{{"api_key": "{key}", "n": 1}}', names) == '{"api_key": "<KEY_1>", "n": 1}'
    assert redact_text("redis://u:hunter2@h:1/0", names) == "redis://u:<PASSWORD_1>@h:1/0"
    assert redact_text("password=$ecret123 now", names) == "password=<PASSWORD_2> now"
    assert redact_text("Authorization: Bearer abcdef123456", names) == "Authorization: Bearer <KEY_2>"
    cut = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA1234\nabcdefghijklmnop1234\nThat was it."
    assert redact_text(cut, names) == "<KEY_3>\nThat was it."


def test_placeholders_store_no_secret() -> None:
    names = Placeholders()
    redact_text("mail ann.lee@example.com, password: hunter22", names)
    held = repr(vars(names)) + repr(names)
    assert "ann" not in held.lower()
    assert "hunter" not in held
    other = Placeholders()
    redact_text("mail ann.lee@example.com", other)
    held_by_one, held_by_other = (
        {key for value in vars(each).values() if isinstance(value, dict) for key in value}
        for each in (names, other)
    )
    assert {"EMAIL"} == held_by_one & held_by_other, "labels are shared; digests are keyed"


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from([t for _, t, _ in planted()]) | st.text(max_size=20), max_size=4))
def test_redact_text_twice_changes_nothing(texts: list[str]) -> None:
    names = Placeholders()
    once = redact_text("\n".join(texts), names)
    assert redact_text(once, names) == once
    assert redact_text("\n".join(texts), names) == once


@settings(deadline=None, max_examples=150)
@given(st.text(st.sampled_from("aA0 .:@/+-_=\"'<>{}\\\nsk"), max_size=80))
def test_redact_text_accepts_any_text(text: str) -> None:
    redact_text(text, Placeholders())


def test_redact_text_accepts_lone_surrogates() -> None:
    assert redact_text("\ud800 password: \ud800hunter2", Placeholders()) == "\ud800 password: <PASSWORD_1>"


# --- linear time: shown by the shape of the patterns, and by large hostile texts that end


def repeats(tree: object) -> list[tuple[str, int]]:
    """Every repetition of a parsed pattern: (kind, maximum)."""
    found: list[tuple[str, int]] = []
    if isinstance(tree, tuple) and len(tree) == 2 and "REPEAT" in str(tree[0]):
        found.append((str(tree[0]), int(tree[1][1])))
    if isinstance(tree, tuple | list) or hasattr(tree, "data"):
        for part in getattr(tree, "data", tree):
            found += repeats(part)
    return found


@pytest.mark.parametrize(
    "rule", (*TOKEN_RULES, *NAMED_RULES, *RANDOM_RULES, *PERSONAL_RULES), ids=lambda rule: rule.kind
)
def test_rules_have_no_unbounded_repetition_but_possessive(rule: SecretRule) -> None:
    for kind, most in repeats(re._parser.parse(rule.pattern.pattern)):
        assert kind == "POSSESSIVE_REPEAT" or most <= 200, (rule.kind, kind)


PEM = "-----BEGIN PRIVATE KEY-----"
HOSTILE = (
    *("a", "a.", "a@", "a@a.", "0", "1 ", "1.", "1-", "+1", "00 1 ", "(2", "a:", ":", "1:", "::1"),
    *("sk-", "sk-a", "eyJ", "eyJa.", "eyJaaaaaaaaa.", "://", "://a:", "://:a@", PEM, PEM + "a-"),
    *("-----", "password", "password:", "password is ", "token_key_", "token = ", "secret ", "aws "),
    *("datadog0", "authorization: ", "bearer ", "DE00", "DE00 0", "GB", "phone number is ", "AKIA"),
    *("aA0", "\\", '\\"', "{", "{{", "<", "=", "M" * 24 + ".", "%40a", "'", "é"),
)


@pytest.mark.parametrize("piece", HOSTILE)
def test_redact_text_takes_linear_time(piece: str) -> None:
    """60 kB each; a pattern of quadratic time would take minutes here."""
    for text in (piece * (60_000 // len(piece)), "x@1.1.1.1" + piece * (20_000 // len(piece)) + "\0"):
        redact_text(text, Placeholders())


@pytest.mark.parametrize(
    "key", ["oy2" + "zme562w9uyx" * 4, "e2b_" + "07fd524c" * 5, "fc-" + "6d9aed43" * 4, "BSA" + "TqrOQn5" * 4]
)
def test_redact_text_replaces_keys_with_short_prefixes(key: str) -> None:
    assert key[4:20] not in redact_text(f"I use {key} for this.", Placeholders())
