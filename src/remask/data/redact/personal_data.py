"""Rules for personal data: e-mail, IBAN, payment cards, IP addresses, telephone numbers.

They are applied after the rules of `secrets.py`. For plain numbers, check digits and boundaries
exclude order numbers, dates, prices and versions. Names, streets and dates of birth have no fixed
form and are not found.
"""

import re
from ipaddress import AddressValueError, IPv6Address

from remask.data.redact.secrets import Hint, Match, SecretRule, get_secret, pattern


def _make_hint(source: str) -> Hint:
    """Make a fast test whether a rule can match. The regex engine skips to its first character."""
    return pattern(source).search


def strip_separators(text: str) -> str:
    """Return the letters and digits of `text` in upper case."""
    return "".join(c for c in text if c.isalnum()).upper()


# --- e-mail

_TLD = re.compile(r"\.(?!(?:png|jpe?g|gif|svg|webp|css|js)$)[^\W\d_]{2}[\w-]*$", re.IGNORECASE)


def _is_mail(match: Match) -> bool:
    """Exclude `package@1.2.3`, `logo@2x.png` and the user of git over ssh."""
    return bool(_TLD.search(re.sub(_DOT, ".", match[0]))) and not match[0].startswith("git@")


# Latin, Greek and Cyrillic letters. \w would include the next words in scripts without spaces.
_LETTER = r"A-Za-z0-9\u00c0-\u052f"
_AT = r"(?:@|%40|&\#64;|&\#x40;| ?[\[({<](?i:at)[\])}>] ?)"
_DOT = r"(?:\.| ?[\[({<](?i:dot)[\])}>] ?)"
_MAIL = re.compile(
    rf"(?:(?<![{_LETTER}._+'-])[{_LETTER}._+'-]++|\"[^\"\n@]{{1,64}}\"){_AT}[{_LETTER}-]++(?:{_DOT}[{_LETTER}-]++)++"
)
_SPOKEN_MAIL = re.compile(
    rf"(?<![{_LETTER}._+-])[{_LETTER}._+-]{{1,64}}+ (?:at|AT) [{_LETTER}-]{{1,64}}+"
    rf"(?: (?:dot|DOT) [{_LETTER}-]{{2,64}}){{0,4}}"
    r" (?:dot|DOT) (?i:com|org|net|edu|gov|info|io|co|ai|dev|app|[d-z]{2})\b"
)
_SSN = pattern(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-])")
_SAID_SSN = pattern(r"(?i:\bSSN\b|social security)[^\n\d]{0,24}(?P<it>\d{3}[- ]?\d\d[- ]?\d{4})(?!\d)")

# --- accounts and cards

# The length of an IBAN, and the countries with that length (ISO 13616 registry).
_IBAN_LENGTHS = {
    15: "NO",
    16: "BE",
    18: "DK|FI|FK|FO|GL|NL|SD",
    19: "MK|SI",
    20: "AT|BA|EE|KZ|LT|LU|MN|XK",
    21: "CH|HR|LI|LV",
    22: "BG|BH|CR|DE|GB|GE|IE|ME|RS",
    23: "AE|GI|IL|IQ|OM|SO|TL",
    24: "AD|CZ|ES|MD|PK|RO|SA|SE|SK|TN|VG",
    25: "LY|PT|ST",
    26: "IS|TR",
    27: "BI|DJ|FR|GR|IT|MC|MR|SM",
    28: "AL|AZ|BY|CY|DO|GT|HU|LB|NI|PL|SV",
    29: "BR|EG|PS|QA|UA",
    30: "JO|KW|MU",
    31: "MT|SC",
    32: "LC",
    33: "RU",
}
_IBAN = (
    "(?<![A-Z0-9])(?:"
    + "|".join(
        rf"(?:{countries})\d\d(?:[ -]?[A-Z0-9]){{{length - 4}}}"
        for length, countries in _IBAN_LENGTHS.items()
    )
    + ")(?![A-Z0-9])"
)


def _is_iban(match: Match) -> bool:
    """Verify the check digits (ISO 7064, mod 97-10)."""
    code = strip_separators(match[0])
    return int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1


# The first digits of issuers by number of digits. Numbers of 13 digits are barcodes, not cards.
_ISSUERS = {14: "3[0689]", 15: "3[47]", 16: "[2456]|35", 17: "[56]", 18: "[56]", 19: "[456]"}
_CARD = pattern(r"(?<![\w.])\d(?:[ -]?\d){13,18}(?!\w|[-.]\d)")


def _is_card(match: Match) -> bool:
    """Verify the issuer's first digits and the Luhn check digit (ISO/IEC 7812-1)."""
    digits = strip_separators(match[0])
    if not re.match(_ISSUERS[len(digits)], digits):
        return False
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    return sum(n - 9 * (n > 9) for n in doubled) % 10 == 0


# --- IP addresses

_VERSION = re.compile(r"(?i:\bv|\bver\.?|version|release|build|section|§)\s*$")
_IPV4 = pattern(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)")
_IPV6 = pattern(r"(?<![\w.])(?:[0-9A-Fa-f]{1,4}:|::)[0-9A-Fa-f:]{0,34}[0-9A-Fa-f](?!\w)")
_IPV6_WHOLE = pattern(r"(?<![\w.])(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}(?!\w)")


def _is_ipv4(match: Match) -> bool:
    """Exclude version and section numbers, and addresses that are not of one machine."""
    parts = match[0].split(".")
    if any(int(part) > 255 for part in parts) or parts[0] in ("0", "127", "255"):
        return False
    if all(len(part) == 1 for part in parts):
        return False
    return not _VERSION.search(match.string[max(0, match.start() - 12) : match.start()])


def _is_ipv6(match: Match) -> bool:
    try:
        address = IPv6Address(match[0])
    except AddressValueError:
        return False
    return int(address) > 0xFFFF and any(c.isdigit() for c in match[0])


# --- telephone numbers

_DATE = re.compile(r"\d{1,2}([-/. ])\d{1,2}\1(?:19|20)\d\d\b|(?:19|20)\d\d[-/.]\d\d?[-/.]\d\d?\b")
_GAP = r"[ \t.\-/()]{0,3}"
_END = r"(?!\w|[-.,/]\d)"
_CALLING = ("phone", "mobile", "fax", "whatsapp", "telefon", "handy", "móvil", "tel.", "tel:")
_REACHING = (*(f"{verb} me" for verb in ("call", "text", "ring", "reach")), "cell is", "cell:")
_CALLING_CJK = ("电话", "手机", "電話", "携帯")
_PHONES = (
    ("phone, +", ("+",), pattern(rf"(?<![\w+])\+\(?[1-9](?:{_GAP}\d){{6,14}}{_END}")),
    (
        "phone, 00",
        _make_hint(r"00 ?[1-9]\d{0,2}[ \-/(]"),
        pattern(rf"(?<![\w.+-])00 ?[1-9]\d{{0,2}}[ \-/(](?:{_GAP}\d){{6,12}}{_END}"),
    ),
    (
        "phone, North America",
        _make_hint(r"\d\d\d[-. ]\d{4}"),
        pattern(
            r"(?<![\w.+/-])(?:1[-. ])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[-. ])[2-9]\d\d[-. ]\d{4}"
            rf"{_END}"
        ),
    ),
    (
        "phone, Brazil",
        _make_hint(r"\(\d\d\) ?9?\d{4}-\d{4}"),
        pattern(rf"(?<![\w+])\(\d\d\) ?9?\d{{4}}-\d{{4}}{_END}"),
    ),
    (
        "phone, with trunk 0",
        _make_hint(r"0[1-9]\d{0,4}\)? ?[ ./-] ?\d\d[\d ./-]{4}"),
        pattern(rf"(?<![\w.+/-])0[1-9]\d{{0,4}}\)?(?: ?[ ./-] ?\d{{2,8}}){{1,5}}{_END}"),
    ),
    (
        "phone, said to be one",
        (*_CALLING, *_REACHING, *_CALLING_CJK),
        pattern(
            rf"(?i:{'|'.join(map(re.escape, (*_CALLING, *_REACHING, *_CALLING_CJK)))})"
            r"(?:[ .]{1,2}(?i:number|no|nr|is|was|at|on|under)\b){0,3}[\s.:=#(：是]{0,3}"
            rf"(?P<it>\d(?:{_GAP}\d){{6,14}})(?!\w)"
        ),
    ),
)


def _is_phone(match: Match) -> bool:
    """Verify the number of digits (ITU-T E.164) and exclude dates."""
    text = get_secret(match)
    return 7 <= sum(c.isdigit() for c in text) <= 15 and not _DATE.match(text)


def _is_trunk_number(match: Match) -> bool:
    return 9 <= sum(c.isdigit() for c in match[0]) <= 12 and not _DATE.match(match[0])


PERSONAL_RULES: tuple[SecretRule, ...] = (
    SecretRule(
        "e-mail", "EMAIL", ("@", "%40", "&#64;", "&#x40;", "at)", "at]", "at}", "at>"), _MAIL, _is_mail
    ),
    SecretRule("e-mail, spoken", "EMAIL", (" dot ",), _SPOKEN_MAIL),
    SecretRule("US social security, said to be one", "SSN", ("ssn", "social security"), _SAID_SSN),
    SecretRule("US social security", "SSN", _make_hint(r"\d{3}-\d\d-\d{4}"), _SSN),
    SecretRule("IBAN", "IBAN", _make_hint(r"[A-Z]{2}\d\d[ -]?[A-Z0-9]{4}"), pattern(_IBAN), _is_iban),
    SecretRule(
        "IBAN, small letters",
        "IBAN",
        _make_hint(r"(?i:[a-z]{2}\d\d[ -]?[a-z0-9]{4})"),
        pattern(f"(?i:{_IBAN})"),
        _is_iban,
    ),
    SecretRule("payment card", "CARD", _make_hint(r"\d(?:[ -]?\d){13}"), _CARD, _is_card),
    SecretRule("IPv4", "IP", _make_hint(r"\d\.\d{1,3}\.\d{1,3}\.\d"), _IPV4, _is_ipv4),
    SecretRule("IPv6", "IP", ("::",), _IPV6, _is_ipv6),
    SecretRule(
        "IPv6, whole", "IP", _make_hint(r":[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:"), _IPV6_WHOLE, _is_ipv6
    ),
    *(
        SecretRule(kind, "PHONE", hint, form, _is_trunk_number if "trunk" in kind else _is_phone)
        for kind, hint, form in _PHONES
    ),
)
