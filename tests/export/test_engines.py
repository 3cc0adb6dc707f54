"""Prompts as templates of other engines: rendered by the real engine they give what remask fills
in, placeholders survive one by one, there and back is a fixed point, and nothing is evaluated."""

from collections.abc import Callable, Mapping

import jinja2
import jinja2.sandbox
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from remask.errors import ConfigError
from remask.export.engines import (
    DOUBLE,
    FORMAT,
    JINJA,
    MLFLOW,
    Engine,
    Variable,
    restore,
    split,
    translate,
    variables,
)
from remask.task.labelled import fill

ENGINES = (DOUBLE, FORMAT, JINJA, MLFLOW)
VALUES = {"x": "{{7*7}}", "topic": "{% set a %}", "row_id": "«»", "y": ""}
Render = Callable[[str, Mapping[str, str]], str]


def jinja(template: str, values: Mapping[str, str]) -> str:
    class Forbidding(jinja2.sandbox.SandboxedEnvironment):
        def call(*args: object, **kwargs: object) -> object:
            raise AssertionError("a template called something")

    environment = Forbidding(keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(values)


def langfuse(template: str, values: Mapping[str, str]) -> str:
    """As Langfuse's SDKs compile: all between {{ and the next }} is a name; unknown ones stay."""
    out, rest = "", template
    while (start := rest.find("{{")) >= 0 and (stop := rest.find("}}", start)) >= 0:
        whole = rest[start : stop + 2]
        out += rest[:start] + values.get(whole[2:-2].strip(), whole)
        rest = rest[stop + 2 :]
    return out + rest


def mlflow(template: str, values: Mapping[str, str]) -> str:
    """As MLflow's PromptVersion.format: Jinja where {% and %} occur, else known names."""
    if "{%" in template and "%}" in template:
        return jinja(template, values)
    parts = split(template, values)
    return "".join(values[p.name] if isinstance(p, Variable) else p for p in parts)


RENDER: dict[str, Render] = {
    DOUBLE.name: langfuse,
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


def known(prompt: str, names: tuple[str, ...] | None) -> dict[str, str]:
    return {name: VALUES.get(name, "?") for name in variables(prompt, names)}


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@settings(max_examples=300, deadline=None)
@given(PROMPTS, NAMES)
def test_a_template_means_what_the_prompt_means_there_and_back(
    engine: Engine, prompt: str, names: tuple[str, ...] | None
) -> None:
    try:
        template = translate(prompt, engine, names)
    except ConfigError as error:
        assert engine is DOUBLE or "plain name" in str(error)  # the others can escape anything
        return
    values = known(prompt, names)
    assert RENDER[engine.name](template, values) == fill(prompt, values)
    try:
        back = restore(template, engine, names)
    except ConfigError:
        event("not read back")  # as text beside a variable would become one in remask
        return
    assert translate(back, engine, names) == template
    assert sorted(variables(back, names)) == sorted(variables(prompt, names))
    assert fill(back, values) == fill(prompt, values)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@settings(max_examples=50, deadline=None)
@given(EASY)
def test_prompts_without_stray_braces_are_never_refused(engine: Engine, prompt: str) -> None:
    template = translate(prompt, engine)
    assert variables(restore(template, engine)) == variables(prompt)


@settings(max_examples=100, deadline=None)
@given(PROMPTS, NAMES)
def test_remask_reads_placeholders_as_its_tasks_fill_them(
    prompt: str, names: tuple[str, ...] | None
) -> None:
    values = known(prompt, names)
    parts = split(prompt, names)
    filled = "".join(values[p.name] if isinstance(p, Variable) else p for p in parts)
    assert filled == fill(prompt, values)
    assert "".join(p.source if isinstance(p, Variable) else p for p in parts) == prompt


@pytest.mark.parametrize(
    ("prompt", "engine", "template"),
    [
        ("Hi {x}", DOUBLE, "Hi {{x}}"),
        ("Hi {{ x }}, ${x}", DOUBLE, "Hi {{ x }}, {{x}}"),
        ("Give {{7*7}} for {x}", DOUBLE, "Give {{7*7}} for {{x}}"),
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
def test_how_it_is_written(prompt: str, engine: Engine, template: str) -> None:
    assert translate(prompt, engine) == template


def test_names_say_what_is_a_variable() -> None:
    text = "Answer {x} as {city} with {{city}}"
    assert translate(text, FORMAT, ("x",)) == "Answer {x} as {{city}} with {{{{city}}}}"
    assert translate(text, DOUBLE, ("x",)) == "Answer {{x}} as {city} with {{city}}"
    # MLflow insists on a value for every {{name}}, so that one must stand in a raw block.
    assert "{% raw %} as {city} with {{city}}{% endraw %}" in translate(text, MLFLOW, ("x",))


@pytest.mark.parametrize(
    ("prompt", "engine", "names"),
    [
        ("{{ a {x} }}", DOUBLE, None),  # Langfuse would see one long name
        ("{first name}", JINJA, ("first name",)),
        ("{true}", JINJA, None),
        ("{user.name}", FORMAT, None),
    ],
)
def test_what_an_engine_cannot_hold_is_refused(
    prompt: str, engine: Engine, names: tuple[str, ...] | None
) -> None:
    with pytest.raises(ConfigError, match=r"would misread|plain name"):
        translate(prompt, engine, names)


@pytest.mark.parametrize(
    ("template", "engine"),
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
def test_code_in_a_template_is_not_read_back(template: str, engine: Engine) -> None:
    with pytest.raises(ConfigError):
        restore(template, engine)
