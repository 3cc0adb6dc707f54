"""Rules for secrets: keys, tokens and passwords. Used by redaction and by the guard of prompts.

The rules are applied in this order: tokens with a known form, values that the text calls a key or a
password, random strings, and then the rules of `personal_data.py`. DOUBTFUL_RULES are used only by
the guard. The forms are from the vendors' documentation and from the rules of the secret scanners
gitleaks and detect-secrets.

Every pattern takes linear time: it begins after a boundary, unlimited repetitions are possessive,
and all other repetitions are bounded.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

Match = re.Match[str]
Hint = Callable[[str], object]


def _always(match: Match) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class SecretRule:
    """One kind of secret. The pattern is applied only to texts with the hint."""

    kind: str
    label: str  # of the placeholder <LABEL_1>
    hint: tuple[str, ...] | Hint  # lower-case strings, one of which must occur; or a fast test
    pattern: re.Pattern[str]  # the secret is the group "it" if there is one, else the match
    holds: Callable[[Match], bool] = _always  # a further condition on a match


MIN_TOKEN_CHARS = 20  # length of a token with a known form; ordinary words are shorter


def _any_text(text: str) -> bool:
    return True


def get_secret(match: Match) -> str:
    """Return the part of a match that is the secret."""
    return match["it"] if "it" in match.re.groupindex else match[0]


# --- conditions on a value

_PLACEHOLDER = re.compile(
    r"\$?\{+[^{}]*\}+|\$\(?(?:[A-Z][A-Z0-9_]*|[a-z_]+)\)?|%[A-Za-z_]+%?|[*•.xX#-]+|\[[A-Za-z_ ]+\]"
)


def _is_mixed(match: Match) -> bool:
    """Require letters and digits; excludes words and plain numbers."""
    text = get_secret(match)
    return any(c.isdigit() for c in text) and any(c.isalpha() for c in text)


def _is_opaque(match: Match) -> bool:
    """Exclude words of a sentence and placeholders."""
    text = get_secret(match).rstrip(".,:;!?)")
    if _PLACEHOLDER.fullmatch(text):
        return False
    return any(not c.isalpha() and c not in "'’-./" for c in text) or text[1:] != text[1:].lower()


def _is_given(match: Match) -> bool:
    return not _PLACEHOLDER.fullmatch(get_secret(match))


def _is_random(match: Match) -> bool:
    """Require frequent changes between upper case, lower case and digits.

    In base64 of random bytes the kind of character changes at 62 % of the steps, in names and paths
    at 10 to 30 %.
    """
    kinds = ["d" if c.isdigit() else "u" if c.isupper() else "l" for c in match[0][:200]]
    if kinds.count("d") < 2 or not {"u", "l"} <= set(kinds):
        return False
    changes = sum(a != b for a, b in pairwise(kinds))
    return changes >= 0.4 * len(kinds)


# --- keys and tokens


def pattern(source: str) -> re.Pattern[str]:
    """Compile in ASCII mode, so that a key ends where Chinese text follows without a blank."""
    return re.compile(source, re.ASCII)


_START = "(?<![A-Za-z0-9])"
_WORD, _ALNUM, _HEX = r"[\w-]", "[A-Za-z0-9]", "[0-9a-f]"

# Vendor, prefixes, characters after a prefix, their minimum number.
_PREFIXED = (
    ("Anthropic", ("sk-ant-",), _WORD, 20),
    ("Langfuse", ("sk-lf-", "pk-lf-"), _WORD, 16),
    ("OpenRouter", ("sk-or-",), _WORD, 20),
    ("OpenAI", ("sk-proj-", "sk-svcacct-", "sk-admin-", "sk-none-", "sk-"), _WORD, 20),
    ("LangSmith", ("lsv2_pt_", "lsv2_sk_", "ls__"), r"\w", 20),
    ("Stripe", tuple(f"{k}k_{mode}_" for k in "srp" for mode in ("live", "test")), _ALNUM, 10),
    ("Stripe webhook", ("whsec_",), "[A-Za-z0-9+/=]", 20),
    ("AWS access key", ("AKIA", "ASIA", "ABIA", "ACCA", "AROA", "AIDA"), "[A-Z0-9]", 16),
    ("Google API key", ("AIza",), _WORD, 30),
    ("Google OAuth", ("ya29.", "GOCSPX-", "1//0"), _WORD, 20),
    ("GitHub classic", ("ghp_", "gho_", "ghr_"), _ALNUM, 20),
    ("GitHub app", ("ghu_", "ghs_"), _ALNUM, 20),
    ("GitHub fine-grained", ("github_pat_",), r"\w", 20),
    ("GitLab", ("glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "gloas-"), r"[\w.-]", 16),
    ("Slack token", (*(f"xox{c}-" for c in "abceoprsd"), "xapp-"), _WORD, 10),
    ("Slack webhook", ("hooks.slack.com/services/", "hooks.slack.com/workflows/"), r"[\w/-]", 16),
    ("Discord webhook", ("discord.com/api/webhooks/", "discordapp.com/api/webhooks/"), r"[\w/-]", 16),
    ("SendGrid", ("SG.",), r"[\w.-]", 40),
    ("Mailgun", ("key-", "pubkey-"), _HEX, 32),
    ("Hugging Face", ("hf_", "api_org_"), _ALNUM, 25),
    ("npm", ("npm_",), _ALNUM, 30),
    ("PyPI", ("pypi-",), _WORD, 30),
    ("DigitalOcean", ("dop_v1_", "doo_v1_", "dor_v1_"), _HEX, 40),
    ("Shopify", ("shpat_", "shpca_", "shppa_", "shpss_"), _ALNUM, 24),
    ("Square", ("sq0atp-", "sq0csp-", "sq0idp-", "EAAA"), _WORD, 20),
    ("Heroku", ("HRKU-",), _WORD, 30),
    ("Databricks", ("dapi",), _HEX, 32),
    ("Linear", ("lin_api_", "lin_oauth_"), _ALNUM, 30),
    ("Notion", ("ntn_", "secret_"), _ALNUM, 40),
    ("Groq", ("gsk_",), _ALNUM, 30),
    ("xAI", ("xai-",), _ALNUM, 40),
    ("Perplexity", ("pplx-",), _ALNUM, 30),
    ("Replicate", ("r8_",), _ALNUM, 30),
    ("Atlassian", ("ATATT3", "ATCTT3"), r"[\w=-]", 30),
    ("Grafana", ("glsa_", "glc_"), r"[\w+/=]", 30),
    ("New Relic", ("NRAK-", "NRJS-"), _ALNUM, 16),
    ("Postman", ("PMAK-",), _WORD, 30),
    ("Vault", ("hvs.", "hvb."), _WORD, 20),
    ("Sentry", ("sntrys_", "sntryu_"), r"[\w+/=]", 30),
    ("Figma", ("figd_",), _WORD, 30),
    ("Supabase", ("sbp_", "sb_secret_"), _WORD, 20),
    ("Fireworks", ("fw_",), _ALNUM, 20),
    ("Pinecone", ("pcsk_",), _WORD, 30),
    ("Together", ("tgp_v1_",), _WORD, 20),
    ("NVIDIA", ("nvapi-",), _WORD, 30),
    ("Cerebras", ("csk-",), _ALNUM, 30),
    ("Tavily", ("tvly-",), _WORD, 20),
    ("Jina", ("jina_",), _WORD, 30),
    ("Anyscale", ("esecret_",), _ALNUM, 20),
    ("Modal", ("ak-", "as-"), _ALNUM, 20),
    ("PostHog", ("phc_", "phx_"), _ALNUM, 30),
    ("Vercel", ("vercel_blob_rw_", "vcp_"), _WORD, 20),
    ("Doppler", tuple(f"dp.{k}." for k in ("st", "pt", "ct", "sa", "scim", "audit")), r"[\w.-]", 30),
    ("PlanetScale", ("pscale_tkn_", "pscale_pw_", "pscale_oauth_"), r"[\w.=-]", 20),
    ("Docker", ("dckr_pat_", "dckr_oat_"), _WORD, 20),
    ("Terraform", ("atlasv1.",), _WORD, 40),
    ("Pulumi", ("pul-",), _HEX, 40),
    ("Bitbucket", ("ATBB",), _ALNUM, 24),
    ("CircleCI", ("CCIPAT_",), _WORD, 20),
    ("SonarQube", ("sqp_", "squ_", "sqa_"), _HEX, 40),
    ("Netlify", ("nfp_",), _ALNUM, 30),
    ("Render", ("rnd_",), _ALNUM, 24),
    ("Brevo", ("xkeysib-", "xsmtpsib-"), r"[\w-]", 40),
    ("Contentful", ("CFPAT-",), _WORD, 30),
    ("RubyGems", ("rubygems_",), _HEX, 40),
    ("NuGet", ("oy2",), "[a-z0-9]", 43),
    ("E2B", ("e2b_",), _HEX, 32),
    ("Firecrawl", ("fc-",), _HEX, 32),
    ("Brave", ("BSA",), _WORD, 27),
    ("Alibaba", ("LTAI",), _ALNUM, 16),
    ("Tencent", ("AKID",), _ALNUM, 30),
    ("Razorpay", ("rzp_live_", "rzp_test_"), _ALNUM, 14),
    ("age", ("AGE-SECRET-KEY-1",), "[A-Z0-9]", 50),
)


def _make_prefix_rule(vendor: str, prefixes: tuple[str, ...], char: str, least: int) -> SecretRule:
    starts = "|".join(map(re.escape, prefixes))
    form = pattern(rf"{_START}(?:{starts}){char}{{{least},}}+")
    return SecretRule(vendor, "KEY", tuple(p.lower() for p in prefixes), form, _is_mixed)


def _make_context_rule(vendor: str, name: str, value: str, *hints: str) -> SecretRule:
    """Make a rule for a value without a known form, up to 40 characters after the vendor's name."""
    form = rf"(?i:{name})[^\n]{{0,40}}?(?<![A-Za-z0-9+/])(?P<it>{value})(?![A-Za-z0-9+/])"
    return SecretRule(vendor, "KEY", hints, pattern(form), _is_mixed)


_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"

_SHAPED = (
    SecretRule("JWT", "KEY", ("eyj",), pattern(rf"{_START}eyJ[\w-]{{8,}}+(?:\.[\w-]*+){{1,4}}")),
    SecretRule(
        "Discord bot", "KEY", _any_text, pattern(r"(?<![\w-])[MNO][\w-]{22,27}\.[\w-]{5,7}\.[\w-]{27,}+")
    ),
    SecretRule("Telegram bot", "KEY", (":aa",), pattern(r"(?<!\d)\d{8,10}:AA[\w-]{30,}+")),
    SecretRule("Twilio", "KEY", _any_text, pattern(rf"{_START}(?:SK|AC)[0-9a-f]{{32}}"), _is_mixed),
    SecretRule(
        "Mailgun (new)", "KEY", _any_text, pattern(r"(?<![\w-])[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8}(?![\w-])")
    ),
    SecretRule(
        "Azure account key",
        "KEY",
        ("accountkey=", "sharedaccesskey=", "sig="),
        pattern(r"(?i:AccountKey=|SharedAccessKey=|[?&;]sig=)(?P<it>[A-Za-z0-9+/%]{20,}+={0,2})"),
    ),
    SecretRule("Airtable", "KEY", ("pat",), pattern(rf"{_START}pat[A-Za-z0-9]{{14}}\.[0-9a-f]{{40,}}+")),
    SecretRule("Resend", "KEY", ("re_",), pattern(rf"{_START}re_[A-Za-z0-9]{{8}}_[A-Za-z0-9]{{20,}}+")),
    SecretRule("HubSpot", "KEY", ("pat-",), pattern(rf"{_START}pat-[a-z]{{2}}\d-{_UUID}")),
    SecretRule("Mailchimp", "KEY", ("-us",), pattern(rf"{_START}[0-9a-f]{{32}}-us\d{{1,2}}(?!\w)")),
    SecretRule("Azure client secret", "KEY", ("q~",), pattern(r"(?<![\w~.-])[\w~.-]{3}\dQ~[\w~.-]{30,}+")),
    _make_context_rule("AWS secret key", r"aws|secret", "[A-Za-z0-9+/]{40}", "aws", "secret"),
    _make_context_rule(
        "Azure key", r"azure|ocp-apim|cognitive", "[0-9a-f]{32}", "azure", "ocp-apim", "cogni"
    ),
    _make_context_rule(
        "Datadog", r"datadog|\bdd[_-]", "[0-9a-f]{32}(?:[0-9a-f]{8})?", "datadog", "dd_", "dd-"
    ),
    _make_context_rule("Twilio auth token", "twilio", "[0-9a-f]{32}", "twilio"),
    _make_context_rule("Cloudflare", "cloudflare", r"[\w-]{37,40}", "cloudflare"),
    _make_context_rule("Heroku (old)", "heroku", _UUID, "heroku"),
)

# --- values that the text calls a secret

_QUOTE = r"\\{0,3}[\"'`]"
# How a password is called, beside "password" and "Passwort" and what begins like them.
_PASSWORDS = (
    *(
        "passw",
        "passphrase",
        "passcode",
        "passkey",
        "pwd",
        "kennwort",
        "losungswort",
        "contraseña",
        "contrasena",
    ),
    *("mot de passe", "mdp", "senha", "palavra-passe", "parola d'ordine", "parola", "wachtwoord", "hasło"),
    *("heslo", "jelszó", "şifre", "sifre", "lösenord", "adgangskode", "passord", "salasana", "kata sandi"),
    *("mật khẩu", "пароль", "пароля", "密码", "密碼", "口令", "パスワード", "暗証番号", "비밀번호", "암호"),
    *("पासवर्ड", "كلمة المرور", "كلمة السر", "รหัสผ่าน", "סיסמה", "κωδικός"),
)
_IS = r"is\b|was\b|ist\b|lautet\b|war\b|es\b|est\b|é\b|è\b|jest\b|to\b|är\b|er\b|olarak\b|adalah\b|là\b|है|هي"
NAMED_RULES: tuple[SecretRule, ...] = (
    SecretRule(
        "private key (PEM)",
        "KEY",
        ("-----begin",),
        pattern(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:"
            r"[^-]*+(?:-(?!----)[^-]*+)*+-----END [A-Z0-9 ]{0,60}-----"
            r"|(?:(?:\s|\\[nr])*+[A-Za-z0-9+/=]{16,}+)*+)"  # cut off before its end
        ),
    ),
    SecretRule(
        "password in an address",
        "PASSWORD",
        ("://",),
        pattern(r"://[^\s/:@\"'<>]{0,100}:(?P<it>[^\s/\"'<>\\]{1,200})@(?=[\w\[{$-])"),
        _is_given,
    ),
    SecretRule(
        "Authorization header",
        "KEY",
        ("authorization", "bearer"),
        pattern(
            rf"(?i:authorization(?:{_QUOTE})?\s{{0,3}}[:=]\s{{0,3}}(?:{_QUOTE})?"
            r"(?:(?:basic|bearer|token|apikey|digest)\s{1,3})?|bearer\s{1,3})"
            r"(?P<it>[A-Za-z0-9._~+/=:-]{8,}+)"
        ),
        _is_opaque,
    ),
    SecretRule(
        "named key",
        "KEY",
        ("key", "secret", "token", "credential"),
        pattern(
            r"(?i:(?:api|access|secret|private|account|auth|encryption|signing|subscription|master"
            r"|licen[cs]e|app)[_\-. ]?key|secret|token|credential)s?"
            r"(?i:[_\-. ]?(?:id|value|base|key|prod|dev|test|live|\d)){0,3}"
            rf"(?:{_QUOTE})?\]?\s{{0,3}}(?::=|=>|={{1,3}}|:|(?i:is\b|was\b):?)\s{{0,3}}"
            rf"(?:{_QUOTE})?(?P<it>[A-Za-z0-9_.~+/=@:!#$%^*-]{{8,}}+)"
        ),
        _is_mixed,
    ),
    SecretRule(
        "password",
        "PASSWORD",
        _PASSWORDS,
        # Unicode's rules of case, for the words of other scripts.
        re.compile(
            rf"(?i:passw(?:or[dt])?|{'|'.join(map(re.escape, _PASSWORDS))})"
            rf"[^\W\d_]{{0,3}}(?:{_QUOTE})?\]?\s{{0,3}}"  # an ending, as in "şifrem" and "lösenordet"
            rf"(?::=|=>|={{1,3}}|[:：]|(?i:{_IS}):?|[はが是为為은는이])\s{{0,3}}"
            rf"(?:{_QUOTE})?(?P<it>[^\s\"'`<>\\]{{4,200}})"
        ),
        _is_opaque,
    ),
    SecretRule(
        "key after its name",
        "KEY",
        ("key", "secret", "token"),
        pattern(r"(?i:\b(?:(?:api|access|private)[_ -]?key|secret|token)s?\b)[ \t]{1,3}(?P<it>\w{20,}+)"),
        _is_mixed,
    ),
    SecretRule(
        "password of netrc",
        "PASSWORD",
        ("login", "machine", "user"),
        pattern(
            r"(?i:\b(?:login|user(?:name)?)\s{1,20}\S{1,100}\s{1,20}(?:password|passwd|pass)\s{1,20})"
            r"(?P<it>[^\s\"']{4,200})"
        ),
        _is_opaque,
    ),
    SecretRule(
        "password of an option or a tag",
        "PASSWORD",
        ("passw", "-pass", "pwd", "secret"),
        pattern(
            r"(?i:--?(?:password|passwd|pass|pwd)\s{1,3}|<(?:\w{1,40}[:_.-])?(?:password|passwd|passwort|pwd|secret)>\s{0,3})"
            r"[\"']?(?P<it>[^\s\"'<>-][^\s\"'<>]{3,200})"
        ),
        _is_opaque,
    ),
    SecretRule(
        "password of a command",
        "PASSWORD",
        (
            "curl",
            "wget",
            "http",
            "mysql",
            "mariadb",
            "sshpass",
            "docker",
            "redis",
            "ldap",
            "wifi:",
            "smbclient",
        ),
        pattern(
            r"(?:\b(?:curl|wget|https?)\b[^\n]{0,200}?\s(?:-u|-U|--user|--proxy-user|-a)(?:\s{1,3}|=|(?=\S))[\"']?[^\s:\"']{1,100}:"
            r"|\b(?:mysql\w{0,20}|mariadb\w{0,20})\b[^\n]{0,200}?\s-p[\"']?"
            r"|\b(?:sshpass|docker\s{1,3}login|ldap\w{1,20})\b[^\n]{0,200}?\s-[pw]\s{0,3}[\"']?|\bredis-cli\b[^\n]{0,200}?\s-a\s{1,3}[\"']?"
            r"|\bsmbclient\b[^\n]{0,200}?\s-U\s{0,3}[^\s%]{1,100}%"
            r"|(?i:\bWIFI:)[^\n]{0,200}?P:)(?P<it>[^\s\"';-][^\s\"';]{3,200})"
        ),
        _is_given,
    ),
    SecretRule(
        "cookie",
        "KEY",
        ("cookie",),
        pattern(
            rf"(?i:\b(?:set-)?cookie2?)(?:{_QUOTE})?\s{{0,3}}[:=]\s{{0,3}}(?:{_QUOTE})?[\w!#$%&*+.^|~-]{{1,100}}="
            r"(?P<it>[^\s;,\"'\\]{8,}+)"
        ),
        _is_opaque,
    ),
    SecretRule(
        "session",
        "KEY",
        ("sess", "sid=", "csrf", "xsrf", "auth", "remember"),
        pattern(
            r"(?i:(?<![A-Za-z0-9])[\w.-]{0,40}(?:sess(?:ion)?[\w.-]{0,20}|sid|csrf[\w.-]{0,20}|xsrf[\w.-]{0,20}"
            r"|auth(?:_?(?:token|key|id))?|remember[\w.-]{0,20}))=(?P<it>[A-Za-z0-9%._~+/=-]{12,}+)"
        ),
        _is_mixed,
    ),
    SecretRule(
        "PIN or security code",
        "PASSWORD",
        ("pin", "cvv", "cvc", "security code"),
        pattern(
            r"(?i:\b(?:cvv2?|cvc2?|security code|pin(?:[ -]?(?:code|number))?)\b)[ \t]{0,3}"
            r"(?:[:=#]|(?i:is|was|ist|lautet|es|est)\b)?[ \t]{0,3}(?P<it>\d{3,8})(?![\w.,:]?\d)"
        ),
    ),
)

# All of these have at least MIN_TOKEN_CHARS characters without a blank.
TOKEN_RULES: tuple[SecretRule, ...] = (*(_make_prefix_rule(*row) for row in _PREFIXED), *_SHAPED)
_LONG_RUN = pattern(r"(?<![A-Za-z0-9_+/=-])[A-Za-z0-9_+/=-]{32,}+")
RANDOM_RULES = (SecretRule("random run", "KEY", _any_text, _LONG_RUN, _is_random),)

# --- strings that may be a secret and that no prompt needs

_MIN_PIECE_CHARS = 8  # after the prefix of a truncated key
_INNER = re.compile(r"[a-z][A-Z]\w*[a-z][A-Z]")


_RUN = re.compile(r"[A-Za-z0-9+/_=-]{20,}+")
_DIGITS = re.compile(r"\+?\(?\d(?:[ \t().\-/]{0,2}\d){6,}+")
_KEY_BEGINS = re.compile(
    r"\b(?:[spr]k[-_]|gh[opsu]_|github_pat_|glpat-|xox[abprs]-|hf_|AKIA|AIza|eyJ)"
    rf"[\w-]{{{_MIN_PIECE_CHARS},}}+|-----BEGIN"
)


def _is_mixed_run(match: Match) -> bool:
    """Require letters and digits, or letters that change their case more than once."""
    letters = match[0].strip("=").replace("-", "").replace("/", "")
    mixed = any(c.isalpha() for c in letters) and not letters.isalpha()
    return mixed or bool(_INNER.search(letters))


DOUBTFUL_RULES: tuple[SecretRule, ...] = (
    *(_make_prefix_rule(vendor, prefixes, char, _MIN_PIECE_CHARS) for vendor, prefixes, char, _ in _PREFIXED),
    SecretRule("piece of a key", "KEY", _any_text, _KEY_BEGINS),
    SecretRule("long mix of characters", "KEY", _any_text, _RUN, _is_mixed_run),
    SecretRule("phone or account number", "PHONE", _any_text, _DIGITS),
)
