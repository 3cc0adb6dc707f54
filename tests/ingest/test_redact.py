"""Redaction: a thousand planted secrets of forty kinds are gone, ordinary texts stay untouched."""

import base64
import json
import random
import re
import string
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.ingest.patterns import RANDOM, SAID, TOKENS, Rule
from remask.ingest.personal import PEOPLE
from remask.ingest.redact import Pseudonyms, redact

ALNUM = string.ascii_letters + string.digits
WORD = ALNUM + "-_"
HEX = "0123456789abcdef"
B64 = ALNUM + "+/"
CAPITALS = string.ascii_uppercase + "234567"

Rng = random.Random
Make = Callable[[Rng], str]


def some(chars: str, n: int) -> Make:
    """`n` of `chars`, with a letter and a digit among them, as in any real key of that length."""

    def make(rng: Rng) -> str:
        while True:
            text = "".join(rng.choices(chars, k=n))
            if any(c.isdigit() for c in text) and any(c.isalpha() for c in text):
                return text

    return make


def behind(prefix: str, chars: str, n: int) -> Make:
    return lambda rng: prefix + some(chars, n)(rng)


def joined(*parts: Make | str) -> Make:
    return lambda rng: "".join(p if isinstance(p, str) else p(rng) for p in parts)


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def jwt(rng: Rng) -> str:
    head = b64url(b'{"alg":"HS256","typ":"JWT"}')
    body = b64url(json.dumps({"sub": str(rng.randrange(10**9)), "name": "J Doe"}).encode())
    return f"{head}.{body}.{b64url(rng.randbytes(32))}"


def pem(rng: Rng) -> str:
    kind = rng.choice(["RSA ", "EC ", "OPENSSH ", ""])
    body = base64.b64encode(rng.randbytes(600)).decode()
    lines = [body[i : i + 64] for i in range(0, len(body), 64)]
    return "\n".join(
        [f"-----BEGIN {kind}PRIVATE KEY-----", *lines, f"-----END {kind}PRIVATE KEY-----"]
    )


def uuid(rng: Rng) -> str:
    h = "".join(rng.choices(HEX, k=32))
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"


# What has a shape of its own, as long as the vendors make it.
KEYS: Mapping[str, Make] = {
    "OpenAI": joined(behind("sk-", ALNUM, 20), "T3BlbkFJ", some(ALNUM, 20)),
    "OpenAI project": joined(behind("sk-proj-", WORD, 74), "T3BlbkFJ", some(WORD, 73), "A"),
    "OpenAI service account": joined(behind("sk-svcacct-", WORD, 60), "T3BlbkFJ", some(WORD, 60)),
    "Anthropic": joined(behind("sk-ant-api03-", WORD, 93), "AA"),
    "AWS access key": behind("AKIA", CAPITALS, 16),
    "AWS session key": behind("ASIA", CAPITALS, 16),
    "Google API key": behind("AIza", WORD, 35),
    "Google OAuth secret": behind("GOCSPX-", WORD, 28),
    "Azure client secret": joined(some(ALNUM, 3), "8Q~", some(ALNUM + "_.-", 34)),
    "GitHub classic": behind("ghp_", ALNUM, 36),
    "GitHub fine-grained": joined(behind("github_pat_", ALNUM, 22), "_", some(ALNUM, 59)),
    "GitHub app": behind("ghs_", ALNUM, 36),
    "GitLab": behind("glpat-", WORD, 20),
    "Slack bot": joined("xoxb-", some("0123456789a", 12), "-", some(ALNUM, 24)),
    "Slack webhook": joined("hooks.slack.com/services/T", some(CAPITALS, 8), "/B", some(ALNUM, 32)),
    "Stripe": behind("sk_live_", ALNUM, 24),
    "Stripe restricted": behind("rk_test_", ALNUM, 99),
    "Twilio": behind("SK", HEX, 32),
    "SendGrid": joined("SG.", some(WORD, 22), ".", some(WORD, 43)),
    "Mailgun": behind("key-", HEX, 32),
    "Mailgun, new": joined(some(HEX, 32), "-", some(HEX, 8), "-", some(HEX, 8)),
    "Hugging Face": behind("hf_", ALNUM, 34),
    "npm": behind("npm_", ALNUM, 36),
    "PyPI": behind("pypi-AgEIcHlwaS5vcmc", WORD, 150),
    "DigitalOcean": behind("dop_v1_", HEX, 64),
    "Discord bot": joined("M", some(ALNUM, 25), ".", some(WORD, 6), ".", some(WORD, 38)),
    "Telegram bot": joined(lambda rng: str(rng.randrange(10**9, 10**10)), ":AA", some(WORD, 33)),
    "Shopify": behind("shpat_", HEX, 32),
    "Square": behind("sq0atp-", WORD, 22),
    "Square, new": behind("EAAA", WORD, 60),
    "Heroku": behind("HRKU-AA", WORD, 58),
    "Databricks": behind("dapi", HEX, 32),
    "Linear": behind("lin_api_", ALNUM, 40),
    "Notion": behind("ntn_", ALNUM, 46),
    "Langfuse": joined("sk-lf-", uuid),
    "LangSmith": joined("lsv2_pt_", some(HEX, 32), "_", some(HEX, 10)),
    "Groq": behind("gsk_", ALNUM, 52),
    "JWT": jwt,
    "PEM": pem,
    "unknown vendor": behind("", ALNUM, 48),
}
# What only its surroundings give away; {} is the secret.
NAMED: Mapping[str, tuple[str, Make]] = {
    "AWS secret key": ("aws_secret_access_key = {}", some(B64, 40)),
    "Azure storage": (
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={}==",
        some(B64, 86),
    ),
    "Azure subscription key": ("Ocp-Apim-Subscription-Key: {}", some(HEX, 32)),
    "Datadog": ("DD_API_KEY={}", some(HEX, 32)),
    "Datadog app": ("datadog application key is {}", some(HEX, 40)),
    "Twilio auth": ("my twilio auth: {}", some(HEX, 32)),
    "Heroku, old": ("HEROKU_API_KEY={}", uuid),
    "Cloudflare": ("cloudflare token {}", some(WORD[:-2], 40)),
    "database": ("postgres://admin:{}@db.example.com:5432/app", some(ALNUM + "!$@", 14)),
    "cache": ("redis://:{}@10.9.8.7:6379/0", some(ALNUM, 12)),
    "basic auth in a URL": ("https://user:{}@example.com/x", some(ALNUM, 9)),
    "Authorization": ("Authorization: Bearer {}", some(ALNUM, 30)),
    "basic": ("'authorization': 'Basic {}'", some(B64, 24)),
    "api key": ("api_key={}", some(HEX, 24)),
    "api key in JSON": ('{{"apiKey": "{}"}}', some(ALNUM, 20)),
    "api key in a query": ("GET /v1/x?api_key={}&page=2", some(ALNUM, 20)),
    "escaped JSON": ('{{\\"client_secret\\": \\"{}\\"}}', some(ALNUM, 20)),
    "password": ("password: {}", some(ALNUM + "!#", 10)),
    "password in JSON": ('{{"password": "{}"}}', some(ALNUM, 8)),
    "password in words": ("My password is {}, please help", some(ALNUM, 9)),
    "password in German": ("Passwort: {}", some(ALNUM, 9)),
}


def digits(rng: Rng, n: int) -> str:
    return "".join(rng.choices(string.digits, k=n))


def mail(rng: Rng) -> str:
    name = rng.choice(["ann.lee", "j_doe", "x+tag", "jörg", "o'neil"]) + digits(rng, 2)
    return f"{name}@{rng.choice(['example.com', 'mail.example.co.uk', 'müller.de', 'a-b.io'])}"


def phone(rng: Rng) -> str:
    d = [digits(rng, 9) for _ in range(2)]
    area, exchange = rng.randrange(200, 990), rng.randrange(200, 990)
    return rng.choice(
        [
            f"+49 {rng.randrange(30, 99)} {d[0][:7]}",
            f"+1 ({area}) {exchange}-{d[0][:4]}",
            f"+33 6 {d[0][:2]} {d[0][2:4]} {d[0][4:6]} {d[0][6:8]}",
            f"+86 13{d[0][:9]}",
            f"({area}) {exchange}-{d[0][:4]}",
            f"{area}-{exchange}-{d[0][:4]}",
            f"1-{area}-{exchange}-{d[0][:4]}",
            f"0044 20 {d[0][:4]} {d[1][:4]}",
            f"0171/{d[0][:7]}",
            f"07{d[0][:3]} {d[1][:6]}",
            f"06 1{d[0][0]} {d[0][1:3]} {d[0][3:5]} {d[0][5:7]}",
        ]
    )


def iban(rng: Rng) -> str:
    country, body = rng.choice(
        [
            ("DE", digits(rng, 18)),
            ("NL", "ABNA" + digits(rng, 10)),
            ("GB", "WEST" + digits(rng, 14)),
        ]
    )
    number = int("".join(str(int(c, 36)) for c in f"{body}{country}00"))
    text = f"{country}{98 - number % 97:02d}{body}"
    grouped = " ".join(text[i : i + 4] for i in range(0, len(text), 4))
    return rng.choice([text, grouped])


def card(rng: Rng) -> str:
    start, n = rng.choice([("4", 16), ("53", 16), ("37", 15), ("6011", 16)])
    body = start + digits(rng, n - 1 - len(start))
    total = sum((int(d) * 2 - 9 * (int(d) > 4)) if i % 2 == 0 else int(d)
                for i, d in enumerate(reversed(body)))  # fmt: skip
    text = body + str(-total % 10)
    groups = (
        [text[:4], text[4:10], text[10:]] if n == 15 else [text[i : i + 4] for i in (0, 4, 8, 12)]
    )
    return rng.choice([text, " ".join(groups), "-".join(groups)])


def ipv4(rng: Rng) -> str:
    return ".".join(str(rng.randrange(11, 127)) for _ in range(4))


def ipv6(rng: Rng) -> str:
    groups = [f"{rng.randrange(1, 65536):x}" for _ in range(6)]
    return rng.choice(["2001:db8:" + ":".join(groups), f"2001:db8::{groups[0]}:{groups[1]}"])


PII: Mapping[str, Make] = {
    "EMAIL": mail, "PHONE": phone, "IBAN": iban, "CARD": card, "IP": ipv4, "IP, long": ipv6,
}  # fmt: skip

AROUND = (
    "{}",
    "Hello, it is {} and it does not work any more.",
    "see ({}), or ask me",
    'it said "{}".',
    "value:{}\nnext line",
    '{{"content": "use {} now"}}',
    "这是{}请看",
)


def planted() -> list[tuple[str, str, str]]:
    """(kind, text, secret): more than 1,000."""
    rng = Rng(20260)
    found = []
    for kind, make in [*KEYS.items(), *PII.items()]:
        for i in range(20):
            it = make(rng)
            around = AROUND[i % len(AROUND)]
            if kind not in PII or kind == "EMAIL" or "这" not in around:
                found.append((kind, around.format(it), it))
    for kind, (around, make) in NAMED.items():
        for _ in range(12):
            it = make(rng)
            found.append((kind, around.format(it), it))
    return found


def test_a_thousand_planted_secrets_are_gone() -> None:
    cases = planted()
    assert len(cases) > 1000
    assert len(KEYS) + len(NAMED) > 50
    names = Pseudonyms()
    left = []
    for kind, text, it in cases:
        after = redact(text, names)
        pieces = [it[i : i + 8] for i in range(0, max(1, len(it) - 7), 4)]
        if "<" not in after or any(piece in after for piece in pieces):
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
def test_ordinary_texts_stay_untouched(text: str) -> None:
    assert redact(text, Pseudonyms()) == text


def test_a_name_is_stable_and_tells_secrets_apart() -> None:
    names = Pseudonyms()
    assert redact("Mail a@b.com or c@d.com!", names) == "Mail <EMAIL_1> or <EMAIL_2>!"
    assert redact("ann.lee@x.de and annlee@x.de", Pseudonyms()) == "<EMAIL_1> and <EMAIL_2>"
    assert redact("c@d.com, A@B.com; +49 170 1234567", names) == "<EMAIL_2>, <EMAIL_1>; <PHONE_1>"
    assert redact("+491701234567 / 10.20.30.40", names) == "<PHONE_1> / <IP_1>"
    assert names.counts == {"EMAIL": 2, "PHONE": 1, "IP": 1}


def test_only_the_secret_goes() -> None:
    names = Pseudonyms()
    key = KEYS["GitHub classic"](Rng(1))
    assert redact(f'{{"api_key": "{key}", "n": 1}}', names) == '{"api_key": "<KEY_1>", "n": 1}'
    assert redact("redis://u:hunter2@h:1/0", names) == "redis://u:<PASSWORD_1>@h:1/0"
    assert redact("password=$ecret123 now", names) == "password=<PASSWORD_2> now"
    assert redact("Authorization: Bearer abcdef123456", names) == "Authorization: Bearer <KEY_2>"
    cut = (
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA1234\nabcdefghijklmnop1234\nThat was it."
    )
    assert redact(cut, names) == "<KEY_3>\nThat was it."


def test_the_memory_of_names_holds_no_secret() -> None:
    names = Pseudonyms()
    redact("mail ann.lee@example.com, password: hunter22", names)
    held = repr(vars(names)) + repr(names)
    assert "ann" not in held.lower()
    assert "hunter" not in held
    other = Pseudonyms()
    redact("mail ann.lee@example.com", other)
    assert set(vars(names)["_names"]).isdisjoint(vars(other)["_names"]), "digests are keyed"


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from([t for _, t, _ in planted()]) | st.text(max_size=20), max_size=4))
def test_redacting_twice_changes_nothing(texts: list[str]) -> None:
    names = Pseudonyms()
    once = redact("\n".join(texts), names)
    assert redact(once, names) == once
    assert redact("\n".join(texts), names) == once


@settings(deadline=None, max_examples=150)
@given(st.text(st.sampled_from("aA0 .:@/+-_=\"'<>{}\\\nsk"), max_size=80))
def test_any_text_is_taken(text: str) -> None:
    redact(text, Pseudonyms())


def test_lone_surrogates_are_taken() -> None:
    assert redact("\ud800 password: \ud800hunter2", Pseudonyms()) == "\ud800 password: <PASSWORD_1>"


# --- linear time: shown by the shape of the patterns, and by large hostile texts that end


def repeats(tree: object) -> list[tuple[str, int]]:
    """Every repetition of a parsed pattern: its kind and how often at most."""
    found: list[tuple[str, int]] = []
    if isinstance(tree, tuple) and len(tree) == 2 and "REPEAT" in str(tree[0]):
        found.append((str(tree[0]), int(tree[1][1])))
    if isinstance(tree, tuple | list) or hasattr(tree, "data"):
        for part in getattr(tree, "data", tree):
            found += repeats(part)
    return found


@pytest.mark.parametrize("rule", (*TOKENS, *SAID, *RANDOM, *PEOPLE), ids=lambda rule: rule.kind)
def test_only_possessive_repetitions_are_unbounded(rule: Rule) -> None:
    for kind, most in repeats(re._parser.parse(rule.pattern.pattern)):
        assert kind == "POSSESSIVE_REPEAT" or most <= 200, (rule.kind, kind)


PEM = "-----BEGIN PRIVATE KEY-----"
HOSTILE = (
    *("a", "a.", "a@", "a@a.", "0", "1 ", "1.", "1-", "+1", "00 1 ", "(2", "a:", ":", "1:", "::1"),
    *("sk-", "sk-a", "eyJ", "eyJa.", "eyJaaaaaaaaa.", "://", "://a:", "://:a@", PEM, PEM + "a-"),
    *(
        "-----",
        "password",
        "password:",
        "password is ",
        "token_key_",
        "token = ",
        "secret ",
        "aws ",
    ),
    *("datadog0", "authorization: ", "bearer ", "DE00", "DE00 0", "GB", "phone number is ", "AKIA"),
    *("aA0", "\\", '\\"', "{", "{{", "<", "=", "M" * 24 + ".", "%40a", "'", "é"),
)


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_texts_end(piece: str) -> None:
    """60 kB each; a pattern of quadratic time would take minutes here."""
    for text in (
        piece * (60_000 // len(piece)),
        "x@1.1.1.1" + piece * (20_000 // len(piece)) + "\0",
    ):
        redact(text, Pseudonyms())
