"""The comparison of two checkouts: what it finds, what a map may rename, and what no map may."""

import json
from typing import Any

import pytest

from benchmarks.compare_checkouts import Comparison, Map, check_map, compare, report


def tree(**more: Any) -> dict[str, Any]:
    """What one run leaves behind, in the words of the old checkout."""
    event = {"kind": "Kept", "round": 3, "masker": "blame", "reason": "validation: +2 over 60 rows"}
    result = {"prompt": "Put no blame.", "spend": {"calls": 7, "seconds": 1.5}, "run_dir": "a"}
    return {"refine": {"events": [event], "result": {**result, "because": ["Hi"], **more}}}


def found(new: dict[str, Any], names: Map | None = None) -> Comparison:
    return compare(tree(), new, names or Map())


def changed(old: str, new: str) -> dict[str, Any]:
    """The tree with a piece of its JSON replaced."""
    text = json.dumps(tree())
    assert old in text
    return dict(json.loads(text.replace(old, new)))


def test_equal_trees_have_no_differences(capsys: pytest.CaptureFixture[str]) -> None:
    same = found(tree())
    assert (same.differences, same.renamed) == ([], {}) and same.compared == 7
    assert report(tree(), same) == 0
    assert capsys.readouterr().out.endswith("same but for 0 renamed words\n")


def test_values_that_differ_from_run_to_run_are_left_out() -> None:
    assert not found(changed('"seconds": 1.5', '"seconds": 2')).differences
    assert not found(changed('"run_dir": "a"', '"run_dir": "b"')).differences
    notes = [{"text": f"made with remask {version}"} for version in ("0.1.0", "0.2.0.dev1")]
    assert not compare(*notes).differences


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"round": 3', '"round": 4', "refine.events[0].round: 3 -> 4"),
        ('"round": 3', '"round": 3.0', "refine.events[0].round: 3 -> 3.0"),
        ("Put no", "Put a", 'refine.result.prompt: "Put no blame." -> "Put a blame."'),
        ('["Hi"]', '["Hi", "x"]', "refine.result.because: 1 -> 2 entries"),
        ('"calls": 7, ', "", "only in old: refine.result.spend.calls: 7"),
        ('"calls": 7', '"calls": 7, "n": 1', "only in new: refine.result.spend.n: 1"),
    ],
)
def test_a_difference_is_found_and_named(
    old: str, new: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    different = found(changed(old, new))
    assert different.differences == [says]
    assert report(tree(), different) == 1
    printed = capsys.readouterr().out.splitlines()
    assert says in printed and printed[-1] == "DIFFERENT: 1 values"


def test_a_renamed_key_is_accepted_and_counted() -> None:
    new = changed('"because"', '"attributions"')
    assert len(found(new).differences) == 2
    same = found(new, Map(keys={"because": "attributions"}))
    assert (same.differences, same.renamed) == ([], {"because -> attributions": 1})


def test_a_key_may_be_renamed_under_one_outer_key_only() -> None:
    old = {"because": [{"drops": [1.0], "trace": "a"}], "drops": 2}
    new = {"attributions": [{"attributions": [1.0], "trace": "a"}], "drops": 2}
    keys = {"because": "attributions", "because.drops": "attributions"}
    same = compare(old, new, Map(keys=keys))
    assert not same.differences and same.compared == 3
    assert same.renamed == {"because -> attributions": 1, "drops -> attributions": 1}


def test_renamed_words_are_accepted_but_not_within_a_prompt() -> None:
    names = Map(values=(("masker", "blame", "attribution"), ("kind", "Kept", "RoundRejected")))
    new = changed('"blame"', '"attribution"')
    new["refine"]["events"][0]["kind"] = "RoundRejected"
    same = found(new, names)
    assert not same.differences and set(same.renamed.values()) == {1} and len(same.renamed) == 2
    new["refine"]["result"]["prompt"] = "Put no attribution."
    assert len(found(new, names).differences) == 1


def test_a_renamed_sentence_keeps_its_numbers() -> None:
    names = Map(values=(("reason", "validation: {a} over {n} rows", "on {n} rows: {a}"),))
    assert not found(changed("validation: +2 over 60 rows", "on 60 rows: +2"), names).differences
    wrong = found(changed("validation: +2 over 60 rows", "on 61 rows: +2"), names)
    assert "over 60 rows" in wrong.differences[0] and "over 61 rows" in wrong.differences[0]


def test_a_moved_key_is_compared_and_what_stands_beside_it_is_named() -> None:
    new = tree()
    new["refine"]["result"]["prompt"] = {"text": "Put no blame.", "tokens": 3}
    moved = (("refine.result", "prompt", "prompt.text"),)
    assert found(new, Map(moved=moved)).differences == ["only in new: refine.result.prompt.tokens: 3"]
    same = found(new, Map(moved=moved, added=("refine.result.prompt.tokens",)))
    assert not same.differences and same.stated == ["only in new: refine.result.prompt.tokens"]


def test_keys_of_one_side_may_be_stated_but_not_differ() -> None:
    names = Map(added=("refine.events.extra",), dropped=("refine.result.because",))
    new = tree()
    new["refine"]["events"][0]["extra"] = 1
    del new["refine"]["result"]["because"]
    assert len(found(new).differences) == 2
    assert not found(new, names).differences and len(found(new, names).stated) == 2


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (Map(keys={"n1": "n"}), "no name of a key"),
        (Map(values=(("prompt", "blame", "attribution"),)), "not words of remask"),
        (Map(values=(("reason", "60 rows", "61 rows"),)), "a number"),
        (Map(moved=(("refine", "result", "result.0"),)), "no name of a key"),
    ],
)
def test_a_map_can_touch_no_number_and_no_prompt(names: Map, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_map(names)


def test_a_key_that_the_map_makes_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="two keys 'because'"):
        found(tree(attributions=["Ho"]), Map(keys={"because": "attributions"}))
