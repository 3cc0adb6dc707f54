"""Secrets are found whatever characters hide them, and in the words of many languages."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.data.redact.redact import Placeholders, find_secrets, make_plain_view, redact_text

KEY = "ghp_" + "HXt41vfBIVEbYdXkuWijGS0Q6E6fnGrTNG0I"
HEX = "a32ea7e5a36cee69527ddbf427436a75"

# (text, what must go)
PLANTED = [
    (f"{KEY[:12]}\u200b{KEY[12:20]}\u200d{KEY[20:]}", KEY[20:]),
    (f"g\u2060hp_{KEY[4:]}", KEY[4:]),
    (f"ghp\ufeff_{KEY[4:]}", KEY[4:]),
    ("".join(chr(ord(c) + 0xFEE0) for c in KEY), "ＨＸ"),
    ("Write to ann.lee99＠example.com.", "ann.lee99"),
    ("Write to ann.lee﹫example．com now", "ann.lee"),
    ("ann.lee&#64;example.com", "ann.lee"),
    ("ann.lee (at) example (dot) com", "ann.lee"),
    ("ann.lee77 at example dot com", "ann.lee77"),
    ('"john doe"@example.com', "john doe"),
    ("Card 4111–1111–1111–1111", "1111–1111"),
    ("Card 4111\u00a01111\u20111111\u00a01111", "4111"),
    ("Card ٤١١١ ١١١١ ١١١١ ١١١١", "٤١١١"),
    ("My account is de89370400440532013000.", "370400440532013000"),
    ("de89 3704 0044 0532 0130 00", "3704 0044"),
    ("gb33bukb20201555555555", "bukb2020"),
    ("call (11) 98765-4321", "98765"),
    ("call +49–170–1234567", "1234567"),
    ("my SSN is 536-22-8765", "536-22"),
    ("social security no. 536 22 8765", "536 22"),
    ("patCI5CFKlFNXfsfY.b0ffa9208033077d8a7a74ffdb5341c6d6fd03e7f61ac415fc1310c2873b2a16", "b0ffa92"),
    ("fw_Tt9eHT3TRX4vQ32zX1JMxKLe", "Tt9eHT3"),
    ("fw_3ZN92TyTKBZfUbLDoREM5pas", "3ZN92Ty"),
    (f"Cookie: sessionid={HEX}; theme=dark", HEX),
    (f"set-cookie: sid={HEX}; Path=/", HEX),
    (f'{{"Cookie": "PHPSESSID={HEX}"}}', HEX),
    (f"csrftoken={HEX}", HEX),
    ("secret c14c3482ef07c6e728a5ac88da8f2c2937ccc3739709b9d2207674c1e98c3240", "c14c3482"),
    ("curl -u admin:OmSYNSn388 https://h/", "OmSYNSn388"),
    ("curl -s --user 'admin:OmSYNSn388' https://h/", "OmSYNSn388"),
    ("wget --user=ann --password=OmSYNSn388 https://h/", "OmSYNSn388"),
    ("mysql -u root -pec9VTopIoC5w -h db", "ec9VTopIoC5w"),
    ("sshpass -p Sommer99x ssh h", "Sommer99x"),
    ("machine h login bob password 5SiCM4xJ2X6C", "5SiCM4xJ2X6C"),
    ("machine h\n  login bob\n  password 5SiCM4xJ2X6C", "5SiCM4xJ2X6C"),
    ("backup --password OmSYNSn388 --all", "OmSYNSn388"), ("java -pwd 'OmSYNSn388'", "OmSYNSn388"),
    ("<user>ann</user><password>OmSYNSn388</password>", "OmSYNSn388"),
    ("<wsse:Password>OmSYNSn388</wsse:Password>", "OmSYNSn388"),
    ("Şifrem: yaz99xyz", "yaz99xyz"), ("Lösenordet är sommar99x", "sommar99x"),
    ("Salasanani: kesa99xyz", "kesa99xyz"),
    ("WIFI:S:net;T:WPA;P:hunter2hunter2;;", "hunter2hunter2"),
    ("my pin is 4821", "4821"), ("cvv 123", "123"),
    ("Mein Passwort ist Sommer99x", "Sommer99x"), ("Kennwort lautet Winter2024xy", "Winter2024xy"),
    ("Das Passwort: sommer99x", "sommer99x"), ("La contraseña es verano99x", "verano99x"),
    ("La contraseña\u00a0: verano99x", "verano99x"), ("Le mot de passe est ete2024xy", "ete2024xy"),
    ("A senha é verao99x", "verao99x"), ("La password è estate99x", "estate99x"),
    ("Het wachtwoord is zomer99x", "zomer99x"), ("Hasło to lato99xyz", "lato99xyz"),
    ("Heslo: leto99xyz", "leto99xyz"), ("пароль: qwerty99x", "qwerty99x"),
    ("Пароль — это qwerty99x", ""), ("ПАРОЛЬ: qwerty99x", "qwerty99x"),
    ("パスワードは qwerty99x です", "qwerty99x"), ("パスワード：qwerty99x", "qwerty99x"),
    ("密码是qwerty99x", "qwerty99x"), ("비밀번호는 qwerty99x", "qwerty99x"),
    ("Şifre: yaz99xyz", "yaz99xyz"), ("Lösenordet är", ""), ("Lösenord är sommar99x", "sommar99x"),
    ("पासवर्ड: qwerty99x", "qwerty99x"), ("كلمة المرور: qwerty99x", "qwerty99x"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "secret"), PLANTED)
def test_redact_text_finds_hidden_secrets(text: str, secret: str) -> None:
    out = redact_text(f"Bitte – hier: {text}", Placeholders())
    assert not secret or secret not in out, out
    assert not secret or out.startswith("Bitte – hier: ")
    assert redact_text(out, Placeholders()) == out
    assert not secret or find_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Mein Passwort ist falsch.",
            "La contraseña es obligatoria",
            "The password is required",
            "Das Passwort da.",
        ),
        *(
            "Sales 2019–2021 grew by 3–5 %.",
            "He is the author=unknown of it",
            "a tan 300 dollar bag",
            "a cookie: no",
        ),
        *(
            "The session= parameter",
            "パスワードは必要です",
            "見て。１２３番。",
            "Meet at home at 5 dot sharp",
        ),
    ],
)
def test_redact_text_keeps_ordinary_words(text: str) -> None:
    assert redact_text(text, Placeholders()) == text


def test_redact_text_keeps_the_rest_of_a_text_with_odd_characters() -> None:
    text = f"Ａ–b “x” {KEY[:9]}\u200b{KEY[9:]} ｃ＠d ann＠example.com – ende – bob@example.com ①"
    names = Placeholders()
    assert redact_text(text, names) == "Ａ–b “x” <KEY_1> ｃ＠d <EMAIL_1> – ende – <EMAIL_2> ①"
    assert redact_text(f"{KEY} ann@example.com", names) == "<KEY_1> <EMAIL_1>"


@settings(deadline=None)
@given(st.text(st.sampled_from("a1 –＠@.ｂ\u200bé\x00中½²٣\ufe0f\n"), max_size=30))
def test_plain_views_say_where_each_character_is(text: str) -> None:
    view, places = make_plain_view(text)
    if places is None:
        assert view == text
    else:
        assert len(view) == len(places) and places == sorted(set(places))
        assert all(
            a == text[place] or not text[place].isascii() for a, place in zip(view, places, strict=True)
        )


def test_redact_text_of_many_odd_characters_takes_linear_time() -> None:
    text = "ann–x＠example.com, b\u200bob@example.com – "
    times = []
    for size in (2_000, 8_000):
        started = time.process_time()
        out = redact_text(text * size, Placeholders())
        times.append(time.process_time() - started)
    assert "example" not in out
    assert times[1] < 8 * max(times[0], 0.05)
