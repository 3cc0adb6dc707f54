"""Columns, templates, splits, duplicates and leaks."""

import json
from collections import Counter
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.data.dataset import (
    SPLITS,
    Columns,
    LoadedDataset,
    allocate_counts,
    assign_guards,
    find_columns,
    load,
    render,
    require_splits,
    split_by_hash,
)
from remask.errors import ConfigError, DataError
from remask.ids import content_id

LABELLED = Columns("input", "label")


def rows(n: int) -> list[dict[str, str]]:
    return [{"input": f"row {i}", "label": "ab"[i % 2]} for i in range(n)]


def counts(dataset: LoadedDataset) -> dict[str, int]:
    found = Counter(e.split for e in dataset.examples)
    return {split: found[split] for split in SPLITS}


def test_load_builds_the_message_from_a_template() -> None:
    data = [{"premise": "It rains.", "hypothesis": "It is wet.", "label": " entailment ", "n": 3}]
    columns = Columns("Premise: {premise}\nHypothesis: { hypothesis } {{x}}", "label")
    (example,) = load(data, columns).examples
    assert example.input == "Premise: It rains.\nHypothesis: It is wet. {x}"
    assert example.expected == "entailment"
    assert example.id == content_id("example", example.input, "entailment")
    # The right answer is not in the columns that a prompt can use.
    assert example.row == {"premise": "It rains.", "hypothesis": "It is wet.", "n": "3"}


def test_load_accepts_a_column_name_with_braces() -> None:
    data = [{"a {b}": "yes {c}", "b": "no"}]
    assert load(data, Columns("a {b}")).examples[0].input == "yes {c}"
    assert load(data, Columns("{b}")).examples[0].input == "no"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (Columns("text"), "'text' is not a column and has no column in {braces}"),
        (Columns("{{input}}"), "has no column in {braces}; the columns are: input, label"),
        (Columns(""), "has no column"),
        (Columns("{inptu}"), "input: no column 'inptu'; the columns are: input, label"),
        (Columns("{input.__class__}"), "no column 'input.__class__'"),
        (Columns("{input!r}"), "no column 'input!r'"),
        (Columns("{}"), "no column ''"),
        (Columns("input", "answer"), "expected: no column 'answer'"),
        (Columns("input", "label", "fold"), "split: no column 'fold'"),
        (Columns("{input} {label}", "label"), "input contains the right answer, column 'label'"),
    ],
)
def test_load_refuses_wrong_columns(columns: Columns, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(rows(2), columns)
    assert words in str(caught.value)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "c d"]), st.text(), min_size=3),
    st.lists(st.sampled_from(["{a}", "{ b }", "{c d}", "{{", "}}", "x", "$", "\n"])),
)
def test_render_replaces_once_and_evaluates_nothing(values: dict[str, str], parts: list[str]) -> None:
    template = "".join(parts)
    meaning = {"{a}": values["a"], "{ b }": values["b"], "{c d}": values["c d"],
               "{{": "{", "}}": "}"}  # fmt: skip
    assert render(template, values) == "".join(meaning.get(p, p) for p in parts)
    assert set(find_columns(template)) <= {"a", "b", "c d"}


@pytest.mark.parametrize("attack", ["{0}", "{a.b}", "{a[0]}", "{a!r}", "{a:>9}", "{__class__}"])
def test_render_reads_format_syntax_as_a_column_name(attack: str) -> None:
    with pytest.raises(KeyError):
        render(attack, {"a": "x"})
    assert render("{a}", {"a": attack}) == attack


def test_load_names_the_line_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("input,label,split\nx,a,train\n\ny,,test\n")
    with pytest.raises(DataError, match=r"a\.csv:4: the right answer is empty \(column label\)"):
        load(path, LABELLED)
    path.write_text("input,label,split\nx,a,train\n ,b,test\n")
    with pytest.raises(DataError, match=r"a\.csv:3: the input is empty \(column input\)"):
        load(path, LABELLED)
    path.write_text("input,label,split\nx,a,train\ny,b,holdout\n")
    with pytest.raises(DataError, match=r"a\.csv:3: unknown split 'holdout'; use one of train"):
        load(path, Columns("input", "label", "split"))
    path = tmp_path / "a.jsonl"
    path.write_text('{"input": "x", "label": "a"}\n{"input": "y"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: the row has no column 'label', only: input"):
        load(path, LABELLED)
    path.write_text('{"input": "x", "more": "a"}\n{"input": "y"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: the row has no column 'more'"):
        load(path, Columns("{input} {more}"))
    path.write_text('{"input": null, "label": "a"}')
    with pytest.raises(DataError, match=r"a\.jsonl:1: the input is empty"):
        load(path, LABELLED)


def test_load_reads_the_split_column() -> None:
    names = ["train", "VALID", " dev ", "val", "validation", "test"]
    data = [{"input": f"{i}", "split": name} for i, name in enumerate(names)]
    loaded = load(data, Columns("input", split="split"))
    expected = ["train", "validation", "validation", "validation", "validation", "test"]
    assert [e.split for e in loaded.examples] == expected
    assert "split" not in loaded.examples[0].row


def test_load_reads_one_file_per_split(tmp_path: Path) -> None:
    for name in ("t", "v"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"input": "{name}", "label": "{name}"}}')
    files = {"train": tmp_path / "t.jsonl", "dev": str(tmp_path / "v.jsonl")}
    loaded = load(files, LABELLED)
    assert counts(loaded) == {"train": 1, "validation": 1, "test": 0}
    assert loaded.labels == ("t", "v")
    loaded = load({"train": files["train"], "test": [{"input": "q", "label": "r"}]}, LABELLED)
    assert counts(loaded) == {"train": 1, "validation": 0, "test": 1}
    with pytest.raises(ConfigError, match="unknown split 'holdout'"):
        load({"holdout": files["train"]}, LABELLED)
    with pytest.raises(ConfigError, match="validation split is given twice"):
        load({"dev": files["dev"], "val": files["dev"]}, LABELLED)
    with pytest.raises(ConfigError, match="given both by separate files and by the column"):
        load(files, Columns("input", "label", "split"))
    with pytest.raises(ConfigError, match="the data has no split"):
        load({}, LABELLED)
    with pytest.raises(ConfigError, match="data has no rows"):
        load(iter([]), LABELLED)


def test_require_splits_counts_the_rows() -> None:
    loaded = load(rows(1), LABELLED)
    with pytest.raises(ConfigError) as caught:
        require_splits(loaded.examples)
    assert str(caught.value).count("1") == 1 and "train 0" in str(caught.value)
    require_splits(loaded.examples, [loaded.examples[0].split])
    require_splits(load(rows(3), LABELLED).examples)


def test_load_drops_exact_duplicates() -> None:
    again = [{**row, "note": "again"} for row in rows(4)]
    loaded = load([*rows(10), *again], LABELLED)
    assert len(loaded.examples) == 10
    assert loaded.warnings == ("left out 4 rows that repeat an earlier row exactly",)
    assert [e.input for e in loaded.examples] == [f"row {i}" for i in range(10)]
    assert not any("note" in e.row for e in loaded.examples)  # the first of equal rows stays


def test_load_keeps_a_leak_in_the_most_protected_split() -> None:
    data = [
        {"input": "Same thing", "label": "a", "split": "train"},
        {"input": "same  THING", "label": "a", "split": "test"},
        {"input": "other", "label": "b", "split": "validation"},
        {"input": "other", "label": "a", "split": "train"},
        {"input": "alone", "label": "b", "split": "train"},
    ]
    loaded = load(data, Columns("input", "label", "split"))
    assert [(e.input, e.split) for e in loaded.examples] == [
        ("same  THING", "test"),
        ("other", "validation"),
        ("alone", "train"),
    ]
    assert len(loaded.warnings) == 1 and loaded.warnings[0].startswith("left out 2 rows whose")


def test_load_reports_contradicting_answers() -> None:
    data = [*rows(20), {"input": "row 3", "label": "z"}]
    loaded = load(data, LABELLED)
    assert len({e.split for e in loaded.examples if e.input == "row 3"}) == 1
    assert loaded.warnings == ("inputs with different right answers: 1; check these rows",)
    assert loaded.labels == ("a", "b", "z")


@settings(deadline=None)
@given(st.lists(st.text(), max_size=60), st.randoms(use_true_random=False), st.integers(0, 5))
def test_split_by_hash_ignores_order_and_has_exact_counts(inputs, random, seed) -> None:
    splits = split_by_hash(inputs, seed=seed)
    random.shuffle(inputs)
    assert split_by_hash([*inputs, *inputs], seed=seed) == splits
    found = Counter(splits.values())
    assert tuple(found[s] for s in SPLITS) == allocate_counts(len(set(inputs)), (0.25, 0.25, 0.5))


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 100), st.integers(0, 100))
def test_allocate_counts_sums_to_the_total(total: int, a: int, b: int) -> None:
    a, b = sorted((a, b))
    percent = (a, b - a, 100 - b)
    found = allocate_counts(total, tuple(p / 100 for p in percent))
    assert sum(found) == total
    assert all(abs(n - Fraction(p * total, 100)) < 1 for n, p in zip(found, percent, strict=True))


@pytest.mark.parametrize("wrong", [(0.5, 0.5), (0.5, 0.5, 0.5), (1.5, -0.5, 0), (float("nan"), 0, 1)])
def test_load_refuses_wrong_fractions(wrong: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="sum to 1"):
        load(rows(4), LABELLED, wrong)


def test_load_gives_other_splits_for_another_seed() -> None:
    one, two = load(rows(40), LABELLED), load(rows(40), LABELLED, seed=1)
    assert counts(one) == counts(two) == {"train": 10, "validation": 10, "test": 20}
    assert [e.split for e in one.examples] != [e.split for e in two.examples]
    assert load(rows(40)[::-1], LABELLED).examples == one.examples[::-1]


def test_all_problems_of_a_file_are_listed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = ["input,label", *(f"row {i}," for i in range(13)), "one,two,three", "good,a"]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        load(path, LABELLED)
    first, *listed = str(caught.value).splitlines()
    assert first == (
        f"{path}: 14 rows cannot be used; to leave such rows out, set data.skip_invalid (--skip-invalid):"
    )
    assert len(listed) == 11
    assert listed[0] == "  line 15: found 3 fields where the header has 2; put fields with ',' in quotes"
    assert listed[1] == "  line 2: the right answer is empty (column label); fill it"
    assert listed[-1] == "  … and 4 more"


def test_rows_that_cannot_be_used_are_left_out_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"input": "x", "label": "a"}\n{"input": "y"}\n{broken\n{"input": "z", "label": NaN}\n')
    found = load(path, LABELLED, skip_invalid=True)
    assert [e.input for e in found.examples] == ["x"]
    assert found.warnings == (
        "left out 3 rows of a.jsonl that cannot be used; the first is line 3: malformed JSON (expecting "
        "property name enclosed in double quotes at column 2); fix it",
    )
    path.write_text('{"input": "y", "label": ""}')
    with pytest.raises(DataError, match=r"a\.jsonl:1: the right answer is empty"):  # nothing would be left
        load(path, LABELLED, skip_invalid=True)


def test_a_problem_of_rows_from_python_names_their_position() -> None:
    data = [{"input": "x", "label": "a"}, {"input": "y", "label": float("nan")}]
    with pytest.raises(DataError, match="data:2: column 'label': nan is not a finite number"):
        load(data, LABELLED)


def test_a_column_that_is_not_used_is_not_judged() -> None:
    data = [{"input": f"{i}", "label": "a", "price": float("nan"), "seen": {1}, "day": date(2025, 1, 2)}
            for i in range(4)]  # fmt: skip
    found = load(data, LABELLED)
    assert len(found.examples) == 4
    assert found.examples[0].row == {"input": found.examples[0].input, "day": "2025-01-02"}


def test_parts_of_columns_are_input_and_right_answer() -> None:
    data = [{"inputs": {"question": "q"}, "outputs": {"answer": "a", "why": "b"}, "id": 1}]
    (example,) = load(data, Columns("{inputs.question}", "outputs.answer")).examples
    assert (example.input, example.expected) == ("q", "a")
    assert example.row == {"inputs": '{"question": "q"}', "id": "1"}  # outputs would show the answer
    with pytest.raises(ConfigError, match="input contains the right answer"):
        load(data, Columns("{outputs}", "outputs.answer"))
    with pytest.raises(ConfigError, match=r"the columns are: id, inputs\.question, outputs\.answer"):
        load(data, Columns("{inputs.text}", "outputs.answer"))


def test_rows_of_chats_have_an_input_and_an_answer() -> None:
    data = [{"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "ab"[i]}]}
            for i in range(2)]  # fmt: skip
    found = load(data, Columns("{input}", "label"))
    assert {(e.input, e.expected) for e in found.examples} == {("q0", "a"), ("q1", "b")}
    assert all(e.row == {} for e in found.examples)  # a chat shows its answer


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "dev", "TEST")])
def test_a_json_file_may_hold_the_rows_by_split(names: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    splits = {name: [{"input": f"{name} {i}", "label": "a"} for i in range(2)] for name in names}
    for indent in (None, 1):
        path.write_text(json.dumps(splits, indent=indent))
        assert counts(load(path, LABELLED)) == {"train": 2, "validation": 2, "test": 2}


def test_rows_may_be_lists_by_column() -> None:
    found = load({"input": ["x", "y"], "label": ["a", "b"]}, LABELLED)
    assert {(e.input, e.expected) for e in found.examples} == {("x", "a"), ("y", "b")}


CASES = [("semicolon.csv", "input", "label"), ("empty_columns.csv", "input", "label"),
         ("empty_last_rows.csv", "input", "label"), ("nan_unused.jsonl", "input", "label"),
         ("nested.jsonl", "{inputs.question}", "outputs.answer")]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "expected"), CASES)
def test_files_of_users_are_read(name: str, text: str, expected: str) -> None:
    found = load(Path(__file__).parent / "files" / name, Columns(text, expected))
    assert len(found.examples) == 40 and not found.warnings
    assert found.labels == ("negative", "positive")
    assert all(e.input.startswith("The lamp number") for e in found.examples)


def test_a_row_of_a_guard_set_stays_where_another_row_is_equal() -> None:
    data = [{**row, "set": name} for name in ("", "safety") for row in rows(9)]
    guards = ("set", ["safety"])
    found = load(data, LABELLED, guards=guards)
    assert [e.row["set"] for e in found.examples] == ["safety"] * 9
    assert all(e.guard == "safety" and e.split != "train" for e in assign_guards(found, guards).examples)
    assert [e.id for e in found.examples] == [e.id for e in load(data, LABELLED).examples]
