"""More than a thousand made-up secrets of sixty kinds, each planted in a text.

Known answer: with each text stands the secret that must not be left in it.
"""

import base64
import json
import random
import string
from collections.abc import Callable, Mapping

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
    return "\n".join([f"-----BEGIN {kind}PRIVATE KEY-----", *lines, f"-----END {kind}PRIVATE KEY-----"])


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
    "Azure storage": ("DefaultEndpointsProtocol=https;AccountName=a;AccountKey={}==", some(B64, 86)),
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
        [("DE", digits(rng, 18)), ("NL", "ABNA" + digits(rng, 10)), ("GB", "WEST" + digits(rng, 14))]
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
    groups = [text[:4], text[4:10], text[10:]] if n == 15 else [text[i : i + 4] for i in (0, 4, 8, 12)]
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


def pieces(secret: str) -> list[str]:
    """Parts of a secret none of which may be left."""
    return [secret[i : i + 8] for i in range(0, max(1, len(secret) - 7), 4)]
