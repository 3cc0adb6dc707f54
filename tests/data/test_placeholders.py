"""Prompts as templates of other tools: the real engines render what remask fills in, variables are
kept, converting back gives the same prompt, and nothing is evaluated."""

import re
from collections.abc import Callable, Mapping

import jinja2
import jinja2.sandbox
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from remask.data.placeholders import (
    FORMAT,
    JINJA,
    LANGFUSE,
    MESSAGE,
    MLFLOW,
    PROMPT,
    Syntax,
    Variable,
    convert,
    fill,
    list_variables,
    restore,
    substitute,
    translate,
)
from remask.errors import ConfigError

SYNTAXES = (LANGFUSE, FORMAT, JINJA, MLFLOW)
VALUES = {"x": "{{7*7}}", "topic": "{% set a %}", "row_id": "«»", "y": ""}
Render = Callable[[str, Mapping[str, str]], str]


def jinja(template: str, values: Mapping[str, str]) -> str:
    class Forbidding(jinja2.sandbox.SandboxedEnvironment):
        def call(*args: object, **kwargs: object) -> object:
            raise AssertionError("a template called something")

    environment = Forbidding(keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(values)


def langfuse(template: str, values: Mapping[str, str]) -> str:
    """Compile like Langfuse: text between {{ and the next }} is a name; unknown names stay."""
    out, rest = "", template
    while (start := rest.find("{{")) >= 0 and (stop := rest.find("}}", start)) >= 0:
        whole = rest[start : stop + 2]
        out += rest[:start] + values.get(whole[2:-2].strip(), whole)
        rest = rest[stop + 2 :]
    return out + rest


def mlflow(template: str, values: Mapping[str, str]) -> str:
    """Format as MLflow's PromptVersion.format does: Jinja if {% and %} occur, else known names."""
    if "{%" in template and "%}" in template:
        return jinja(template, values)
    parts = PROMPT.read(template, values)
    return "".join(values[p.name] if isinstance(p, Variable) else p for p in parts)


RENDER: dict[str, Render] = {
    LANGFUSE.name: langfuse,
    FORMAT.name: lambda template, values: template.format(**values),
    JINJA.name: jinja,
    MLFLOW.name: mlflow,
}

PLACEHOLDERS = st.sampled_from(
    ["{x}", "{{x}}", "{{ x }}", "${x}", "{topic}", "{{ topic}}", "${row_id}", "{{row_id}}"]
)
NASTY = st.sampled_from(
    [
        *("{", "}", "{{", "}}", "{%", "%}", "{#", "#}", "$", "{% raw %}", "{% endraw %}"),
        *("{%- raw -%}", "{{7*7}}", "{{ x.__class__ }}", "{0.__class__}", "${jndi:ldap://a}"),
        *("<%= 1 %>", "{{{x}}}", "{{#each a}}", "{% for i in x %}", '{"a": {"b": 1}}', "{y}"),
        *("{{y}}", "{ x }", "{x!r}", '{{ "{" }}', "{}", "{0}", "# line", "\n", " ", "\\"),
        *('"', "'", "raw", "-"),
    ]
)
# No carriage returns: Jinja turns every kind of line end into \n.
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r{}"), max_size=8)
PROMPTS = st.lists(st.one_of(PLACEHOLDERS, NASTY, WORDS), max_size=10).map("".join)
NAMES = st.sampled_from([None, ("x", "topic", "row_id"), ()])
EASY = st.lists(st.one_of(PLACEHOLDERS, WORDS), max_size=10).map("".join)


def names_in(prompt: str, names: tuple[str, ...] | None = None) -> tuple[str, ...]:
    return list_variables(PROMPT.read(prompt, names))


def known(prompt: str, names: tuple[str, ...] | None) -> dict[str, str]:
    return {name: VALUES.get(name, "?") for name in names_in(prompt, names)}


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@settings(max_examples=300, deadline=None)
@given(PROMPTS, NAMES)
def test_translate_and_restore_keep_the_meaning(
    syntax: Syntax, prompt: str, names: tuple[str, ...] | None
) -> None:
    try:
        template = translate(prompt, syntax, names)
    except ConfigError as error:
        assert syntax is LANGFUSE or "only letters" in str(error)  # the others can escape any text
        return
    values = known(prompt, names)
    assert RENDER[syntax.name](template, values) == fill(prompt, values)
    try:
        back = restore(template, syntax, names)
    except ConfigError:
        event("not restored")  # text beside a variable would become a variable in remask
        return
    assert translate(back, syntax, names) == template
    assert sorted(names_in(back, names)) == sorted(names_in(prompt, names))
    assert fill(back, values) == fill(prompt, values)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@settings(max_examples=50, deadline=None)
@given(EASY)
def test_translate_accepts_prompts_without_stray_braces(syntax: Syntax, prompt: str) -> None:
    template = translate(prompt, syntax)
    assert names_in(restore(template, syntax)) == names_in(prompt)


@settings(max_examples=100, deadline=None)
@given(PROMPTS, NAMES)
def test_fill_replaces_once_and_changes_nothing_else(prompt: str, names: tuple[str, ...] | None) -> None:
    values = known(prompt, names)
    parts = PROMPT.read(prompt, names)
    written = r"\$\{([^{}]*)\}|\{\{([^{}]*)\}\}|\{([^{}]*)\}"
    once = re.sub(written, lambda m: values.get((m[m.lastindex or 0]).strip(), m[0]), prompt)
    assert substitute(parts, values) == fill(prompt, values) == once
    assert "".join(p.source if isinstance(p, Variable) else p for p in parts) == prompt


@pytest.mark.parametrize(
    ("prompt", "syntax", "template"),
    [
        ("Hi {x}", LANGFUSE, "Hi {{x}}"),
        ("Hi {{ x }}, ${x}", LANGFUSE, "Hi {{ x }}, {{x}}"),
        ("Give {{7*7}} for {x}", LANGFUSE, "Give {{7*7}} for {{x}}"),
        ("Hi {{x}}: {}", FORMAT, "Hi {x}: {{}}"),
        ("Hi {x}", JINJA, "Hi {{x}}"),
        ("{{7*7}} {x}", JINJA, "{% raw %}{{7*7}} {% endraw %}{{x}}"),
        ("a #} {x}", JINJA, "{% raw %}a #} {% endraw %}{{x}}"),  # Nunjucks: end of a comment
        ("{% endraw %}", JINJA, '{{ "{" }}{% raw %}% endraw %}{% endraw %}'),
        ('{"a": {x}}', JINJA, '{"a": {{x}}}'),
        ("{{7*7}} {x}", MLFLOW, "{{7*7}} {{x}}"),
        ("{% if a %} {x}", MLFLOW, "{% raw %}{% if a %} {% endraw %}{{x}}"),
    ],
)
def test_translate(prompt: str, syntax: Syntax, template: str) -> None:
    assert translate(prompt, syntax) == template


def test_translate_takes_only_names_as_variables() -> None:
    text = "Answer {x} as {city} with {{city}}"
    assert translate(text, FORMAT, ("x",)) == "Answer {x} as {{city}} with {{{{city}}}}"
    assert translate(text, LANGFUSE, ("x",)) == "Answer {{x}} as {city} with {{city}}"
    # MLflow needs a value for every {{name}}, so the other one must be in a raw block.
    assert "{% raw %} as {city} with {{city}}{% endraw %}" in translate(text, MLFLOW, ("x",))


@pytest.mark.parametrize(
    ("prompt", "syntax", "names"),
    [
        ("{{ a {x} }}", LANGFUSE, None),  # Langfuse would see one long name
        ("{first name}", JINJA, ("first name",)),
        ("{true}", JINJA, None),
        ("{user.name}", FORMAT, None),
    ],
)
def test_translate_refuses_what_an_engine_cannot_hold(
    prompt: str, syntax: Syntax, names: tuple[str, ...] | None
) -> None:
    with pytest.raises(ConfigError, match=r"would misread|only letters"):
        translate(prompt, syntax, names)


@pytest.mark.parametrize(
    ("template", "syntax"),
    [
        ("{% if x %}a{% endif %}", JINJA),
        ("{{ x | upper }}", JINJA),
        ("{# note #}", JINJA),
        ("{x!r}", FORMAT),
        ("{x.__class__}", FORMAT),
        ("{x", FORMAT),
        ("Costs {y}, {{y}}", FORMAT),  # {y} is a variable there, the other one would become one
    ],
)
def test_restore_refuses_code(template: str, syntax: Syntax) -> None:
    with pytest.raises(ConfigError):
        restore(template, syntax)


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("Say {{-x-}} .", "Say{{x}}."),  # Jinja removes the blanks
        ("{%- raw -%} {{y}} {%- endraw %}{{x}}", "{{y}}{{x}}"),
        ("{{ '}' }}{{x}}", "}{{x}}"),
        ("one\r\ntwo {{x}}\r", "one\r\ntwo {{x}}\r"),
        ("{{x}} a }} b #} c %} {", "{{x}} a }} b #} c %} {"),
    ],
)
def test_restore_reads_jinja_as_its_lexer_does(template: str, prompt: str) -> None:
    assert restore(template, JINJA, ("x",)) == prompt


@pytest.mark.parametrize("template", ["{{ x", "a\n{% raw %} b", "{{ 'a\\n' }}", "{{ (x }}", "{# x"])
def test_restore_names_the_line_of_unclosed_jinja(template: str) -> None:
    line = template.count("\n") + 1
    with pytest.raises(ConfigError, match=f"line {line} of the template contains code"):
        restore(template, JINJA)


def test_restore_refuses_text_that_remask_would_fill() -> None:
    template = "{% raw %}{{y}}{% endraw %} {{x}}"
    assert restore(template, JINJA, ("x",)) == "{{y}} {{x}}"
    with pytest.raises(ConfigError, match=r"remask would misread the prompt at '\{\{y\}\}'"):
        restore(template, JINJA, ("x", "y"))


COLUMNS = st.sampled_from(["a", "b c", "a.b", "x!r", "€"]).map(lambda name: Variable(name, ""))
TEXTS = st.text(st.sampled_from("{}a $\n"), min_size=1, max_size=6)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, COLUMNS), max_size=5))
def test_message_template_accepts_any_text_and_column(parts: list[tuple[str, Variable]]) -> None:
    pieces = tuple(piece for part in parts for piece in part)
    assert MESSAGE.read(MESSAGE.write(pieces), None) == pieces


def test_message_template_from_jinja() -> None:
    template = "{x} of {{ thing }}{% raw %}{{7}}{% endraw %}"
    assert convert(template, JINJA, MESSAGE) == "{{x}} of {thing}{{{{7}}}}"
