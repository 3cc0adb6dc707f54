"""benchmarks/search: what it counts, withholds, seals, resumes and concludes."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.optimisers import NAMES as OPTIMISERS
from benchmarks.optimisers.baselines import add_demos, few_shot, templates
from benchmarks.record import hide_folders, place_block
from benchmarks.search.__main__ import describe_grid, main, read_arguments
from benchmarks.search.bootstrap import compare_tables, find_calls_to_share, measure_spread
from benchmarks.search.cells import (
    Cell,
    CellFile,
    Sealed,
    find_finished,
    gather_rows,
    list_cells,
    pack,
    run_cell,
    unpack,
)
from benchmarks.search.lab import (
    Counted,
    Lab,
    Protocol,
    check_rows,
    load_search_rows,
    load_test_rows,
    load_withheld_rows,
    name_target,
    open_lab,
)
from benchmarks.search.report import BEHIND, find_shared_seeds, format_report
from benchmarks.tasks import NAMES, load_task
from benchmarks.tasks.hidden import LETTERS, draw_rules
from remask.errors import BudgetSpent
from remask.ports import Reply, TargetModel
from remask.prompt import Prompt
from remask.types import Chat, Example, Message, Outcome, Score

NOWHERE = Path("there-is-no-data")  # the task letters reads no file
SMALL = Protocol(60, (30, 60), withheld=30, test=50)


class Parrot(TargetModel):
    """A scripted target: greets by name under a prompt that says "message", else nonsense."""

    identity = "parrot"

    def __init__(self, dies_after: int | None = None) -> None:
        self.calls, self.dies_after = 0, dies_after

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        self.calls += len(chats)
        if self.dies_after is not None and self.calls > self.dies_after:
            raise KeyboardInterrupt
        return [Reply(self._said(*(m.content for m in chat))) for chat in chats]

    def _said(self, prompt: str, message: str = "") -> str:
        return f"Dear {message.split()[-1]}," if "message" in prompt and message else "no"


def chats(*texts: str) -> list[Chat]:
    return [(Message("user", text),) for text in texts]


def lab_of(cap: int, target: Parrot | None = None) -> Lab:
    bench = load_task("letters")
    return open_lab(bench, load_search_rows(bench, NOWHERE, 0, SMALL), target or Parrot(), cap, 0)


def reports_early(lab: Lab) -> None:
    ids = lab.task.ids("validation")
    lab.task.evaluate(lab.start, ids[:31])
    lab.report("Read the message.")
    lab.task.evaluate(Prompt("Read the message."), ids[:29])
    lab.task.evaluate(Prompt("Read it."), ids)  # passes the cap


def run(runs: Path, target: Parrot, test: bool = True, cell: Cell | None = None) -> dict[str, float]:
    return run_cell(
        cell or Cell(0, "letters", "nothing"), SMALL, NOWHERE, runs,
        commit="c0ffee", test=test,
        make_target=lambda bench: target, load=lambda name: reports_early,
    )  # fmt: skip


def test_counted_refuses_before_the_cap_is_passed() -> None:
    inner = Parrot()
    counted = Counted(inner, 3)
    counted.respond(chats("a", "b"))
    with pytest.raises(BudgetSpent, match="needs 2 calls and 1 is left"):
        counted.respond(chats("c", "d"))
    counted.respond(chats("c"))
    assert (counted.spent, inner.calls) == (3, 3)


def test_equal_chats_cost_once_within_a_run_and_again_in_the_next() -> None:
    inner = Parrot()
    counted = Counted(inner, 9)
    assert len(counted.respond(chats("a", "a", "b"))) == 3
    counted.respond(chats("b"))
    assert (counted.spent, inner.calls) == (2, 2)
    Counted(inner, 9).respond(chats("a"))
    assert inner.calls == 3


def test_no_attribute_of_a_lab_leads_to_the_target() -> None:
    inner = Parrot()
    lab = lab_of(5, inner)
    assert all(value is not inner for value in vars(lab.counted).values())
    assert all(value is not inner for value in vars(lab.task).values())


@pytest.mark.parametrize("seed", [0, 1])
def test_splits_are_disjoint_and_sized(seed: int) -> None:
    bench = load_task("letters")
    sizes = Protocol()
    rows = load_search_rows(bench, NOWHERE, seed, sizes)
    texts = [{e.input for e in part} for part in (
        [e for e in rows if e.split == "train"], [e for e in rows if e.split == "validation"],
        load_withheld_rows(bench, NOWHERE, sizes), load_test_rows(bench, NOWHERE, sizes),
    )]  # fmt: skip
    assert [len(part) for part in texts] == [50, 150, 100, 300]
    assert len(set.union(*texts)) == 600


def data_of(folder: Path, rows: int) -> Path:
    """SST-2 files of `rows` different rows each, and one of them twice."""
    (folder / "sst2").mkdir()
    for file in ("train", "validation", "test"):
        lines = [{"input": f"{file} {i}", "label": "positive"} for i in [*range(rows), 0]]
        text = "\n".join(map(json.dumps, lines))
        (folder / "sst2" / f"{file}.jsonl").write_text(text)
    return folder


def test_a_small_test_file_is_used_whole(tmp_path: Path) -> None:
    bench, data = load_task("sst2"), data_of(tmp_path, 40)
    assert len(load_test_rows(bench, data, Protocol())) == 40
    assert len(load_test_rows(bench, data, Protocol(test=10))) == 10


def test_too_few_rows_are_said_before_the_first_call(tmp_path: Path) -> None:
    bench, data = load_task("sst2"), data_of(tmp_path, 40)
    with pytest.raises(SystemExit, match=r"sst2: the train file has 40 .* the protocol needs 200"):
        check_rows(bench, data, Protocol())
    with pytest.raises(SystemExit, match=r"the validation file has 40 .* needs 50"):
        check_rows(bench, data, Protocol(train=20, validation=20, withheld=50))
    check_rows(bench, data, Protocol(train=20, validation=20, withheld=40))


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = data_of(tmp_path, 3) / "sst2" / "train.jsonl"
    path.write_text(path.read_text() + "\n{")
    with pytest.raises(SystemExit, match=r"train.jsonl, line 5: no JSON"):
        check_rows(load_task("sst2"), tmp_path, Protocol())


def test_seeds_differ_in_search_rows_alone() -> None:
    bench = load_task("letters")
    one, other = ({e.input for e in load_search_rows(bench, NOWHERE, s, SMALL)} for s in (0, 1))
    assert one != other


def test_every_task_has_distinct_human_prompts() -> None:
    for name in NAMES:
        task = load_task(name)
        assert len(set(task.templates)) == len(task.templates) >= 12
        assert task.seed_prompt not in task.templates


def test_drawn_tasks_share_no_row_and_no_copied_word_between_splits() -> None:
    for name in ("letters", "subject", "hidden_a", "hidden_b"):
        files = [load_task(name).read(NOWHERE, file) for file in ("train", "validation", "test")]
        assert [len(rows) for rows in files] == [1000, 500, 1000]
        inputs = [{row["input"] for row in rows} for rows in files]
        assert not inputs[0] & inputs[1] and not inputs[0] & inputs[2] and not inputs[1] & inputs[2]
        assert files[0] == load_task(name).read(NOWHERE, "train")


def grade(task: str, label: str, response: str) -> Score:
    return load_task(task).metric(Example("x", "train", "My lamp broke.", label), response)


def test_subject_wants_its_first_word_and_the_product_in_the_first_line() -> None:
    label = "Subject: your lamp"
    assert grade("subject", label, "Subject: broken Lamp\n\nDear") == 1
    assert grade("subject", label, "Subject: hello\nlamp") * 2
    assert grade("subject", label, "") == grade("subject", label, "My lamp.") == 0


def test_hidden_rules_stand_in_the_traces_and_nowhere_else() -> None:
    rules = [draw_rules(letter) for letter in LETTERS]
    assert len({o for o, _ in rules}) == len({w for _, w in rules}) == len(LETTERS), "no two share a rule"
    for letter, (opening, word) in zip(LETTERS, rules, strict=True):
        name = f"hidden_{letter}"
        task = load_task(name)
        rows = task.read(NOWHERE, "train")
        assert all(row["label"].startswith(opening) and word not in row["label"] for row in rows)
        prompts = " ".join([task.seed_prompt, *task.templates])
        assert word not in prompts and opening not in prompts
        assert grade(name, "", f"{opening}, I am {word}.") == Score(1.0)
        missed = grade(name, "", f"{opening}.")
        assert missed.value == 0.5 and word in missed.feedback and opening not in missed.feedback
        assert grade(name, "", word).feedback == ""


def test_missing_data_is_one_sentence() -> None:
    with pytest.raises(SystemExit, match="give the folder of the data with --data"):
        load_search_rows(load_task("sst2"), NOWHERE, 0, SMALL)


def test_a_part_of_the_grid_is_balanced() -> None:
    cells = list(list_cells(["a", "b"], ["x", "y", "z"], [0, 1]))
    assert [(c.seed, c.task, c.optimiser) for c in cells[:4]] == [
        (0, "a", "x"), (0, "a", "y"), (0, "a", "z"), (0, "b", "x"),
    ]  # fmt: skip


def test_the_curve_is_read_from_incumbents(tmp_path: Path) -> None:
    run(tmp_path, Parrot(), test=False)
    record = CellFile(tmp_path, Cell(0, "letters", "nothing"), SMALL).record
    seed = load_task("letters").seed_prompt
    assert record["search"]["prompts"] == {"30": seed, "60": "Read the message."}
    assert (record["search"]["calls"], record["search"]["stopped"]) == (60, "budget")
    assert set(record["withheld"]) == {"30", "60"}
    assert not {"test", "test_begun"} & set(record)


def test_a_cut_grid_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Parrot(dies_after=40))  # in the search: nothing is kept
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Parrot(dies_after=70))  # in the withheld rows: the search is kept
    rest = Parrot()
    assert "search" not in run(tmp_path, rest)
    assert rest.calls == 2 * 30 + 2 * 50
    assert run(tmp_path, Parrot(dies_after=0)) == {}  # finished: nobody is asked


def test_equal_prompts_are_scored_once_for_all_optimisers(tmp_path: Path) -> None:
    run(tmp_path, Parrot())
    other = Parrot()
    run(tmp_path, other, cell=Cell(0, "letters", "remask"))
    assert other.calls == SMALL.calls  # the search is paid for in full, the scores are not


def test_test_rows_are_asked_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Parrot(dies_after=60 + 60 + 10))
    assert run(tmp_path, Parrot(dies_after=0)) == {}  # the mark is durable: never again
    file = CellFile(tmp_path, Cell(0, "letters", "nothing"), SMALL)
    with pytest.raises(Sealed, match="may not be asked again"):
        file.begin_test()


def test_cells_of_the_old_names_continue(tmp_path: Path) -> None:
    cell = Cell(0, "letters", "nothing")
    path = tmp_path / "cells" / "letters.nothing.0.json"
    path.parent.mkdir()
    protocol = asdict(SMALL)
    del protocol["denoiser"], protocol["target"]
    path.write_text(json.dumps({"cell": asdict(cell), "protocol": {**protocol, "dlm": "embedded"}}))
    assert CellFile(tmp_path, cell, SMALL).record["protocol"]["denoiser"] == "builtin"


def test_another_protocol_is_refused(tmp_path: Path) -> None:
    run(tmp_path, Parrot(), test=False)
    with pytest.raises(SystemExit, match="give another --runs folder"):
        CellFile(tmp_path, Cell(0, "letters", "nothing"), replace(SMALL, test=51))
    with pytest.raises(SystemExit, match="give another --runs folder"):
        CellFile(tmp_path, Cell(0, "letters", "nothing"), replace(SMALL, target="local:other.gguf"))


def test_another_model_of_the_same_name_does_not_continue_a_cell(tmp_path: Path) -> None:
    run(tmp_path, Parrot(), test=False)
    other = Parrot()
    other.identity = "cockatoo"
    with pytest.raises(SystemExit, match="its search asked parrot, but now the target is cockatoo"):
        run(tmp_path, other)
    assert other.calls == 0


@pytest.mark.parametrize("form", ["--target {}", "--target={}"])
@pytest.mark.parametrize("place", ["/a/models/qwen.gguf", "../models/qwen.gguf", "models/qwen.gguf"])
def test_results_name_a_local_target_without_its_folder(form: str, place: str) -> None:
    target = f"local:{place}"
    protocol = Protocol(target=name_target(target))
    words = ["--data", "/a/data", *form.format(target).split()]
    about = describe_grid(words, target, protocol, Path("/a/data"))
    assert about["command"].endswith("--data FOLDER " + form.format("local:qwen.gguf"))
    assert about["target"] == protocol.target == "local:qwen.gguf"
    assert "models" not in json.dumps(about)


@pytest.mark.parametrize("target", ["qwen.gguf", "openai:gpt", "local:", "local:/"])
def test_a_target_that_is_neither_builtin_nor_local_is_refused(
    target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read_arguments(["--data", "x", "--runs", "y", "--target", target])
    assert f"--target {target}: give builtin, or local:" in capsys.readouterr().err


def test_a_local_target_that_is_not_there_is_said_before_the_first_cell(tmp_path: Path) -> None:
    place = tmp_path / "none.gguf"
    with pytest.raises(SystemExit, match=r"none\.gguf"):
        main(f"--data {NOWHERE} --runs {tmp_path} --tasks letters --target local:{place}".split())
    assert not list(tmp_path.iterdir())


def test_packed_scores_come_back() -> None:
    scores = [0.0, 1.0, 0.5, 2 / 3, 0.8]
    outcomes = [Outcome("r", "scored", s) for s in scores] + [Outcome("r", "failed")]
    *found, failed = unpack(pack(outcomes))
    assert found == pytest.approx(scores) and failed is None


def test_bootstrap_on_known_data() -> None:
    rng = np.random.default_rng(1)
    base = rng.integers(0, 2, (3, 400)).astype(float)
    same = compare_tables({"a": base}, {"a": base.copy()}, 500)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    better = compare_tables({"a": base + 0.1, "b": base}, {"a": base, "b": base}, 500)
    assert (better.mean, better.low, better.high) == pytest.approx((5, 5, 5))


def test_bootstrap_has_the_width_of_independent_rows() -> None:
    gap = np.tile(np.random.default_rng(2).normal(0, 1, 900), (3, 1))
    found = compare_tables({"a": gap}, {"a": np.zeros_like(gap)}, 4000)
    width = 2 * 1.96 * gap[0].std() / 30  # the seeds agree, so rows alone are drawn
    assert (found.high - found.low) / 100 == pytest.approx(width, rel=0.1)


def test_bootstrap_refuses_what_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="share no task"):
        compare_tables({"a": np.zeros((1, 2))}, {"b": np.zeros((1, 2))})
    with pytest.raises(ValueError, match="against"):
        compare_tables({"a": np.zeros((1, 2))}, {"a": np.zeros((1, 3))})


def test_spread_is_that_of_known_gaps() -> None:
    base = {"a": np.zeros((2, 4)), "b": np.zeros((1, 4))}
    moved = {"a": np.array([[0.03] * 4, [-0.03] * 4]), "b": np.full((1, 4), np.nan)}
    moved["b"][0, 0] = 0.03
    assert measure_spread(moved, base) == pytest.approx(3)


def test_calls_to_a_share_of_the_gain() -> None:
    assert find_calls_to_share({100: 50, 200: 58.9, 400: 59.1, 800: 60}, 50) == 400
    assert find_calls_to_share({100: 50, 200: 49}, 50) is None


def test_another_machine_continues_from_the_results_file(tmp_path: Path) -> None:
    first, second, out = Cell(0, "letters", "nothing"), Cell(1, "letters", "nothing"), tmp_path / "out.json"
    about = {"commit": "c", "protocol": json.loads(json.dumps(asdict(SMALL)))}
    run(tmp_path / "a", Parrot(), cell=first)
    gather_rows(tmp_path / "a", out, about)
    assert find_finished(out, SMALL, test=True) == {first}
    run(tmp_path / "b", Parrot(), cell=second)
    gather_rows(tmp_path / "b", out, about)
    assert find_finished(out, SMALL, test=True) == {first, second}
    before = out.read_text()
    gather_rows(tmp_path / "a", out, about)
    assert out.read_text() == before
    with pytest.raises(SystemExit, match="another --out"):
        find_finished(out, replace(SMALL, test=7), test=True)


def test_report_from_cells(tmp_path: Path) -> None:
    for name in ("remask", "remask_again", "random_edits", "few_shot", "nothing"):
        run(tmp_path, Parrot(), cell=Cell(0, "letters", name))
    for name in ("remask", "random_edits", "few_shot", "nothing"):
        run(tmp_path, Parrot(), cell=Cell(1, "letters", name))  # a seed that A/A has not
    run(tmp_path, Parrot(), cell=Cell(2, "letters", "remask"))  # a seed that the endpoint has not
    out = tmp_path / "search.json"
    gather_rows(tmp_path, out, {"commit": "c", "command": "x", "machine": "m"})
    data = json.loads(out.read_text())
    assert find_shared_seeds(data["rows"], ["remask", "nothing"]) == {"letters": [0, 1]}
    assert find_shared_seeds(data["rows"], ["remask", "remask_again"]) == {"letters": [0]}
    words, curves = format_report(data)
    endpoint, behind = words.split(BEHIND)
    assert "Pairs of task and seed: 2. Test rows: letters 50." in endpoint
    assert OPTIMISERS["remask_again"] not in endpoint and "remask_again" not in curves
    assert "Pairs of task and seed: 1." in behind and OPTIMISERS["few_shot"] not in behind
    assert "remask minus " + OPTIMISERS["few_shot"] + ", test rows at 60 calls: +0.0" in words
    assert "By task, test rows at 60 calls:" in words and "| optimiser | letters |" in words
    assert set(curves) == {"remask", "random_edits", "few_shot", "nothing"}
    assert "two runs on the same rows differ by 0.0 points" in behind
    assert data["commit"] == "c0ffee"
    last = next(r for r in data["rows"] if r["calls"] == 60)
    assert {"withheld", "test", "n_test", "seed_test", "prompt"} <= set(last)


def test_what_stands_between_the_marks_is_replaced() -> None:
    page = "# Page\n<!-- x:begin -->\none\n<!-- x:end -->\nmore\n"
    assert place_block(page, "x", "two") == page.replace("one", "two")
    with pytest.raises(SystemExit, match="<!-- y:begin -->"):
        place_block(page, "y", "two")


def test_templates_find_the_prompt_that_works() -> None:
    lab = lab_of(800)
    templates(lab)
    assert "message" in lab.find_incumbent(800) and lab.counted.spent <= 800


def test_what_is_taken_from_the_writers_answer() -> None:
    from benchmarks.optimisers.rewriter import extract_instruction

    assert extract_instruction('Say the name." Here I') == "Say the name."
    assert extract_instruction("Say the name. Then the") == "Say the name."
    assert extract_instruction("Say the name") == "Say the name"


def test_command_hides_folders() -> None:
    said = hide_folders("search.py --data /a/b --runs /a/b/c", Path("/a/b"), Path("/a/b/c"))
    assert said == "search.py --data FOLDER --runs FOLDER"


@pytest.mark.slow
def test_builtin_models_play_a_control(tmp_path: Path) -> None:
    """The real target under the real cap, and the writer of the controls."""
    from benchmarks.optimisers.rewriter import Writer
    from benchmarks.search.lab import load_target
    from remask.models.backbone.builtin_weights import load_base

    bench = load_task("letters")
    lab = open_lab(bench, load_search_rows(bench, NOWHERE, 0, SMALL), load_target(bench), 4, 0)
    outcomes = lab.task.evaluate(lab.start, lab.task.ids("validation")[:4])
    assert all(o.status == "scored" and 0 <= o.score <= 1 for o in outcomes)
    with pytest.raises(BudgetSpent):
        lab.task.evaluate(lab.start, lab.task.ids("validation")[:5])
    writer = Writer(load_base())
    texts = writer.write("Write a short rule for a polite answer.", 3, 5, 12)
    assert texts == writer.write("Write a short rule for a polite answer.", 3, 5, 12)
    assert len(texts) == 3 and any(texts)


@pytest.mark.slow
def test_random_words_are_whole() -> None:
    from benchmarks.optimisers.remask import RandomWords, find_frequent_words
    from remask.models.backbone.builtin_weights import load_base
    from remask.ports import Hole

    words = RandomWords(load_base(), find_frequent_words(load_base()))
    assert not {"dri", "coff", "fro"} & set(words.words) and "answer" in words.words
    (fill,) = words.infill((), [("Say ", Hole("it", 4), ".", Hole("x", 0))], 1)
    assert len(fill.texts[0].split()) == 4 and fill.texts[1] == ""


def test_few_shot_spends_its_budget_and_shows_train_rows_alone() -> None:
    lab = lab_of(800)
    few_shot(lab)
    assert 700 < lab.counted.spent <= 800
    rng = np.random.default_rng(0)
    shown = add_demos(lab, 8, rng)
    assert sum(question in shown for question, _ in lab.trained) == 8
    held = [e.input for e in load_search_rows(lab.bench, NOWHERE, 0, SMALL) if e.split == "validation"]
    assert not any(question in shown for question in held)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_gepa_ends_by_the_cap_and_reports_what_validates_best() -> None:
    pytest.importorskip("gepa")
    from benchmarks.optimisers.gepa import evolve, is_fenced

    lab = lab_of(400)
    with contextlib.suppress(BudgetSpent):
        evolve(lab, reflection_lm=lambda prompt: "```\nCopy the message.\n```")
    assert lab.find_incumbent(400) == "Copy the message." and lab.counted.spent <= 400
    assert is_fenced("Here:\n```\nSay the name.\n```") and not is_fenced("```\nSay")


def test_a_target_that_is_free_answers_in_its_own_words() -> None:
    class Both(Parrot):
        def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Reply]:
            raise AssertionError("the target of a free task never chooses")

        def _said(self, prompt: str, message: str = "") -> str:
            return "I think that it is Positive." if "love" in message else "Nice!"

    bench = load_task("reviews")
    texts = {"love": "positive", "dull": "negative"}
    examples = [Example(text, "train", text, label) for text, label in texts.items()]
    lab = open_lab(bench, examples, Both(), 2, 0)
    assert [o.score for o in lab.task.evaluate(lab.start, ["love", "dull"])] == [1, 0]


def test_a_race_finds_the_one_good_candidate_and_keeps_out_of_a_lost_one() -> None:
    from benchmarks.acceptance.candidates import race_candidates

    gains = np.full((24, 100), -0.5)
    assert not race_candidates(gains, gains).any()  # nothing leads: the start prompt stays
    gains[7] = 0.25
    assert race_candidates(gains, gains) == pytest.approx(0.25)  # all 24 race in each draw


def test_an_arm_of_other_settings_is_refused(tmp_path: Path) -> None:
    from benchmarks.acceptance import candidates

    asked = {"start": "", "candidates": 48, "rows": 80}
    (tmp_path / "letters.remask.json").write_text(json.dumps({"asked": asked}))
    options = ["--data", "x", "--out", str(tmp_path), "--tasks", "letters", "--arms", "remask"]
    with pytest.raises(SystemExit, match="give another --out"):
        candidates.main(options)
