"""Learning from measured edits: what a run says about its candidates, and what training does with it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fakes import write_lines
from fakes.checkpoints import BASES
from fakes.colours import Oracle, optimize, search
from fakes.finished_run import record
from remask.cli import main
from remask.dlm.build import find_base
from remask.dlm.layout import Layout
from remask.dlm.training.batches import draw_batch
from remask.dlm.training.corpus import TrainingExample
from remask.dlm.training.measured import (
    PRIOR_ROWS,
    EditGroup,
    EditPlan,
    MeasuredEdit,
    find_denoised_spans,
    list_parents,
    make_source,
    measure_diversity,
    read_edits,
    weigh_gains,
)
from remask.dlm.training.student import Student, init_parameters
from remask.dlm.training.train import TrainPlan, compute_losses, train
from remask.errors import ConfigError
from remask.events import Proposed, Scored, Started, encode
from remask.prompt import Prompt
from remask.runs.report.read_run import view_run
from remask.runs.store import Store
from remask.types import Trace

PARENT = "Name the team. Be brief."
PLAN = TrainPlan(steps=30, tasks=2, rows=2, warmup=1, rate=1e-2, rank=4, alpha=8.0)
OUTCOME = {"split": "train", "message": "Late?", "text": "A", "desired": "B", "feedback": "", "score": 0.0}


def write_run(
    folder: Path, candidates: dict[str, tuple[str, tuple[tuple[int, int, str], ...], tuple[float, ...]]]
) -> Path:
    """Write a run whose candidates have (masker, edits, ranking scores); the parent has 0.5 on each row."""
    start = Prompt(PARENT)
    with Store.create(folder, record(PARENT)) as store:
        store.keep_outcomes(start.id, {"r0": {**OUTCOME, "trace": "t0"}})
        store.append(encode(Started(PARENT, start.id, 6)))
        store.append(encode(Scored(0, start.id, "train", tuple((f"r{i}", 0.0, 0.5) for i in range(4)))))
        for text, (masker, edits, scores) in candidates.items():
            prompt = Prompt(text)
            masks = tuple((a, b, 3) for a, b, _ in edits)
            read = ("t0", "gone")
            store.append(encode(Proposed(0, prompt.id, start.id, text, 6, masker, masks, edits, read, -1.0)))
            rows = tuple((f"r{i}", 0.0, score) for i, score in enumerate(scores))
            if rows:
                store.append(encode(Scored(0, prompt.id, "train", rows)))
    return folder


CANDIDATES = {
    "Name one team. Be brief.": ("span", ((5, 8, "one"),), (0.9, 0.7)),
    "Name the team. Be kind.": ("sentence", ((15, 24, "Be kind."),), (0.25,) * 4),
    "Name the team. Be brief. Say why.": ("anchor", ((24, 24, " Say why."),), (0.5, 0.5, 0.6)),
    "Name the team.": ("delete", ((14, 24, ""),), (1.0,) * 4),
    "Name the team. Be brief. Read twice.": ("library", ((24, 24, " Read twice."),), (1.0,) * 4),
    "Name the team. Be brief. Q: a": ("demos in", ((24, 24, " Q: a"),), (1.0,) * 4),
    "Name a team. Be brief.": ("span", ((5, 8, "a"),), ()),
}


def test_a_run_gives_the_written_edits_with_their_gains_and_traces(tmp_path: Path) -> None:
    """Texts that the denoiser did not write, and candidates that were not asked, are left out."""
    (group,) = read_edits([write_run(tmp_path / "run", CANDIDATES)])
    assert group.parent == PARENT
    found = {edit.prompt: edit for edit in group.edits}
    assert list(found) == list(CANDIDATES)[:3]
    assert found["Name one team. Be brief."].gain == pytest.approx(0.3 * 2 / (2 + PRIOR_ROWS))
    assert found["Name the team. Be kind."].gain == pytest.approx(-0.25 * 4 / (4 + PRIOR_ROWS))
    assert found["Name the team. Be brief. Say why."].spans == ((24, 33),)
    assert {edit.traces for edit in group.edits} == {(Trace("t0", "Late?", "A", "B", (), 0.0),)}
    (example,) = list_parents([group])
    assert example.prompt == PARENT and len(example.traces) == 1


def test_runs_may_be_named_one_by_one_or_by_their_folder(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "runs" / name, CANDIDATES) for name in ("a", "b")]
    assert read_edits(runs) == read_edits([tmp_path / "runs"])
    assert len(read_edits(runs)) == 2, "their rows may differ, so they are not one group"


@pytest.mark.parametrize(
    ("break_run", "reason"),
    [
        (lambda folder: folder.mkdir(), "no run"),
        (lambda folder: write_run(folder, {}), "no prompt with two measured edits"),
        (lambda folder: write_run(folder, dict(list(CANDIDATES.items())[:1])), "two measured edits"),
    ],
)
def test_runs_without_edits_are_one_sentence(
    tmp_path: Path, break_run: Callable[[Path], object], reason: str
) -> None:
    break_run(tmp_path / "run")
    flags = ["adapt", "--from-runs", str(tmp_path / "run"), "-o", str(tmp_path / "a.safetensors")]
    done = CliRunner().invoke(main, flags)
    assert done.exit_code == 2 and reason in done.stderr and "Traceback" not in done.stderr


def test_a_damaged_trace_of_a_run_is_one_sentence(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", CANDIDATES)
    with Store.open(folder) as store:
        store.keep_outcomes(Prompt(PARENT).id, {"r0": {**OUTCOME, "trace": 3}})
    with pytest.raises(ConfigError, match="damaged"):
        read_edits([folder])


def test_adapt_needs_prompts_or_runs(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["adapt", "-o", str(tmp_path / "a.safetensors")])
    assert done.exit_code == 2 and "--data PATH, --from-runs RUN" in done.stderr


def test_few_parents_ask_for_prompts(tmp_path: Path) -> None:
    flags = ["adapt", "--from-runs", str(write_run(tmp_path / "run", CANDIDATES))]
    done = CliRunner().invoke(main, [*flags, "-o", str(tmp_path / "a.safetensors")])
    assert done.exit_code == 2 and "--data beside the runs" in done.stderr


def test_optimize_stores_the_traces_that_its_candidates_were_written_from(tmp_path: Path) -> None:
    optimize(tmp_path / "run", target=Oracle(), search=search(maskers=["insert", "sentence", "rewrite"]))
    groups = read_edits([tmp_path / "run"])
    assert groups and all(edit.traces for group in groups for edit in group.edits)
    assert groups[0].edits[0].traces[0].desired
    assert {row.split for row in view_run(tmp_path / "run").rows} == {"validation", "test"}


def test_fixed_words_of_an_anchored_edit_were_not_written() -> None:
    text = " Keep it short and clear."
    pieces = ((" Keep", 2), (" it", 1), (" short", 0), (" and", 1), (" clear.", 2))
    anchored = Proposed(0, "b", "a", f"Be kind.{text}", 9, "anchor", (), ((8, 8, text),), (), 0.0, (pieces,))
    prompt = anchored.prompt
    assert [prompt[a:b] for a, b in find_denoised_spans(anchored)] == [" Keep it", " and clear."]
    assert find_denoised_spans(replace(anchored, pieces=())) == ((8, len(prompt)),)


def test_weights_have_both_signs_and_grow_with_the_gain() -> None:
    gains = [0.3, 0.1, 0.0, -0.4]
    both = weigh_gains(gains, EditPlan(negative=1.0))
    assert sum(both) == pytest.approx(0) and both[0] > both[1] > 0 > both[3]
    assert sorted(both, reverse=True) == list(both)
    assert min(weigh_gains(gains, EditPlan(negative=0.0))) > 0
    sharp = weigh_gains(gains, EditPlan(negative=1.0, sharpness=3.0))
    assert sharp[0] > both[0] and sharp[3] < both[3]
    assert weigh_gains([100 * g for g in gains], EditPlan(negative=1.0)) == pytest.approx(both)


def make_group(*texts: tuple[str, float]) -> EditGroup:
    edits = [
        MeasuredEdit(f"{PARENT} {text}", ((len(PARENT) + 1, len(PARENT) + 1 + len(text)),), (), gain,
                     ((len(PARENT), len(PARENT), 6),))
        for text, gain in texts
    ]  # fmt: skip
    return EditGroup(PARENT, tuple(edits))


def make_student(name: str, checkpoint: Callable[[str], Path]) -> Student:
    base = find_base(f"local:{checkpoint(name)}", device="cpu", dtype=torch.float32)
    tensors = init_parameters(base.backbone, PLAN.rank, 0)
    return Student(base.backbone, base.family, PLAN.rank, PLAN.alpha, tensors)


GOOD, BAD = "Write the one right word.", "You are so very old."


@pytest.mark.parametrize("name", BASES)
def test_training_makes_what_gained_more_probable_and_what_lost_less(
    checkpoint: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    student = make_student(name, checkpoint)
    source = make_source([make_group((GOOD, 0.2), (BAD, -0.2))], EditPlan(share=0.9, negative=1.0))
    layout = Layout(student.base, student.family)

    def measure(text: str) -> float:
        """The loss of the text alone, all positive."""
        group = EditGroup(PARENT, make_group((text, 0.0)).edits, (1.0,))
        batch = draw_batch([[group]], (1.0,), layout, 1, 8, seed=1, step=0)
        return compute_losses(student, batch, TrainPlan(steps=1, rows=8))[0]

    before = measure(GOOD), measure(BAD)
    prompts = [TrainingExample(f"You read message {n}. Name the team for it.", ()) for n in range(4)]
    steps = list(train(student, prompts, PLAN, tmp_path / "checkpoint", edits=source))
    assert len(steps) == PLAN.steps
    after = measure(GOOD), measure(BAD)
    assert after[0] < before[0] - 0.5
    assert after[1] - after[0] > before[1] - before[0] + 0.5


def test_only_written_tokens_are_masked_and_weighted(checkpoint: Callable[[str], Path]) -> None:
    student = make_student("qwen2", checkpoint)
    layout = Layout(student.base, student.family)
    (group,) = make_source([make_group((GOOD, 0.2), (BAD, -0.2))], EditPlan(negative=1.0)).groups
    signs = set()
    for step in range(12):
        batch = draw_batch([[group]], (1.0,), layout, 1, 4, seed=0, step=step)
        assert batch.edit_weights is not None
        (weight,) = batch.edit_weights.tolist()
        assert abs(weight) == pytest.approx(group.scale)
        signs.add(weight > 0)
        text = layout.backbone.encode(f" {GOOD if weight > 0 else BAD}")
        assert set(batch.truth[batch.masked].tolist()) <= set(text)
        assert batch.masked.any(1).all()
    assert signs == {True, False}


def test_a_run_with_other_edits_does_not_continue_a_checkpoint(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    prompts = [TrainingExample(f"You read message {n}. Name the team for it.", ()) for n in range(4)]
    plan, file = TrainPlan(steps=2, tasks=1, rows=2, rank=4, alpha=8.0), tmp_path / "checkpoint"
    source = make_source([make_group((GOOD, 0.2), (BAD, -0.2))], EditPlan())
    next(train(make_student("qwen2", checkpoint), prompts, plan, file, every=0.0, edits=source))
    other = make_source([make_group((GOOD, 0.2), (BAD, -0.3))], EditPlan())
    for edits in (None, other):
        with pytest.raises(ConfigError, match="other settings or data"):
            next(train(make_student("qwen2", checkpoint), prompts, plan, file, every=0.0, edits=edits))


def test_diversity_is_the_same_for_the_same_adapter(checkpoint: Callable[[str], Path]) -> None:
    student = make_student("qwen2", checkpoint)
    group = make_group((GOOD, 0.2), (BAD, -0.2))
    shares = [measure_diversity(student.base, student.to_adapted_model(), [group]) for _ in range(2)]
    assert shares[0] == shares[1] and 0 <= shares[0] <= 1


def test_adapt_command_learns_from_runs(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    runs = write_run(tmp_path / "runs" / "a", CANDIDATES).parent
    rows = [{"prompt": f"You read message {n}. Name the team for it.", "examples": []} for n in range(6)]
    data, out = write_lines(tmp_path / "rows.jsonl", *rows), tmp_path / "a.safetensors"
    flags = ["adapt", "--data", str(data), "--from-runs", str(runs), "-o", str(out), "--steps", "2"]
    flags += ["--base", f"local:{checkpoint('qwen2')}", "--held-out", "0", "--rank", "4"]
    done = CliRunner().invoke(main, flags)
    assert done.exit_code == 0, done.output
    assert "from 6 prompts and 3 measured edits" in done.stdout
    assert "fills at step 0" in done.stderr and "fills at step 2" in done.stderr
    assert "Measured edits: 3 of 1 prompts" in out.with_suffix(".md").read_text()
    assert out.with_suffix(".log.jsonl").read_text().count("distinct_2") == 2
