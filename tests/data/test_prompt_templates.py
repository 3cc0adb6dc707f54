"""System prompts as templates: variables are found, different prompts are separate."""

from hypothesis import given, settings
from hypothesis import strategies as st

from remask.data.prompt_templates import find_prompt_templates

POLICY = "You help customers of a shop.\nToday is {day}. The customer is {name}.\nNever give advice."


def test_templates_have_variables_for_differing_words() -> None:
    prompts = {
        POLICY.format(day=day, name=name): 2
        for day, name in [("Monday", "Ann Lee"), ("Friday", "Bob"), ("Tuesday", "Eve Day")]
    }
    prompts["Translate to French."] = 1
    shop, french = find_prompt_templates(prompts)
    assert shop.text == POLICY.format(day="{variable_1}", name="{variable_2}")
    assert (shop.count, shop.distinct) == (6, 3)
    assert set(shop.examples[0]) == {"Monday", "Friday", "Tuesday"}
    assert set(shop.examples[1]) == {"Ann Lee", "Bob", "Eve Day"}
    assert (french.text, french.count, french.examples) == ("Translate to French.", 1, ())


def test_templates_allow_empty_and_long_values() -> None:
    prompts = {f"Answer from these documents only:\n{doc}\nBe short and say where it stands.": 1
               for doc in ("", "one " * 3, "two")}  # fmt: skip
    (found,) = find_prompt_templates(prompts)
    assert found.distinct == 3 and found.text.startswith("Answer from these documents only:")
    assert found.text.endswith("Be short and say where it stands.")


def test_templates_of_different_prompts_are_separate() -> None:
    prompts = {"You are a pirate. Say arr.": 3, "Summarise the text in one line.": 5, "": 1}
    assert [(t.text, t.count) for t in find_prompt_templates(prompts)] == [
        ("Summarise the text in one line.", 5),
        ("You are a pirate. Say arr.", 3),
        ("", 1),
    ]


def test_templates_of_many_prompts_are_found_quickly() -> None:
    prompts = {POLICY.format(day=f"day {i}", name=f"name {i}"): 1 for i in range(1500)}
    found = find_prompt_templates(prompts)
    assert [t.distinct for t in found] == [1500]


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.text("ab {}\n", max_size=30), st.integers(1, 5), max_size=6))
def test_templates_contain_every_prompt_once(prompts: dict[str, int]) -> None:
    found = find_prompt_templates(prompts)
    assert sum(t.count for t in found) == sum(prompts.values())
    assert sum(t.distinct for t in found) == len(prompts)
    for template in found:
        assert len(template.examples) == len(template.pieces) - 1
        assert any(
            text.startswith(template.pieces[0]) and text.endswith(template.pieces[-1]) for text in prompts
        )
