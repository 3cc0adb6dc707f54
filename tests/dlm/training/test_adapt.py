"""Training with the real built-in model: equal logits in training and use, and interruptions."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fakes import write_lines
from remask.api.build_models import make_denoiser
from remask.cli import main
from remask.config import DenoiserConfig
from remask.dlm.adapter import load_adapter
from remask.dlm.build import make_builtin_mode
from remask.dlm.families import FAMILIES
from remask.dlm.layout import Layout
from remask.dlm.training.batches import Batch, cut_window, draw_batch
from remask.dlm.training.corpus import TrainingExample, read_examples
from remask.dlm.training.held_out import measure, score_at_once, score_left_to_right
from remask.dlm.training.masking import CorruptionMask
from remask.dlm.training.student import Student, init_parameters
from remask.dlm.training.train import TrainPlan, TrainStep, compute_losses, train, weigh_tokens
from remask.errors import ConfigError
from remask.models.backbone.builtin_weights import load_base
from remask.ports import Hole

FAMILY = FAMILIES["smollm2-135m"]
TEAMS = ("delivery", "payment", "returns", "account")
PLAN = TrainPlan(steps=4, tasks=1, rows=2, warmup=1, rate=1e-3, rank=4, alpha=8.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {
            "prompt": f"You read message {n} of a customer. Name the team that should answer it.",
            "examples": [{"input": f"My parcel {i} is late.", "output": t}
                         for i, t in enumerate(TEAMS)],
        }
        for n in range(12)
    ]  # fmt: skip
    return write_lines(tmp_path / "rows.jsonl", *rows)


@pytest.fixture
def examples(data: Path) -> list[TrainingExample]:
    return read_examples([data])


def student(seed: int = 0) -> Student:
    base = load_base()
    made = Student(base, FAMILY, PLAN.rank, PLAN.alpha, init_parameters(base, PLAN.rank, seed))
    generator = torch.Generator().manual_seed(seed)
    for name, p in made.parameters.items():  # as after some training, so that nothing is zero
        if name.endswith(".b"):
            p.data = torch.randn(p.shape, generator=generator) * 0.02
    return made


def test_training_and_use_have_equal_logits(examples: list[TrainingExample], tmp_path: Path) -> None:
    """The logits of training equal those of the saved adapter in a denoiser.

    In float32 and with parameters that a file can store, only the order of summation differs.
    """
    base = load_base(dtype=torch.float32)
    stored = {n: p.data.to(torch.bfloat16) for n, p in student().parameters.items()}
    made = Student(base, FAMILY, 4, 8.0, stored)
    layout = Layout(base, FAMILY)
    batch = draw_batch([examples], (1.0,), layout, 2, 2, seed=3, step=0)
    _, memory = base.read(batch.contexts, batch.contexts_mask)
    past = memory.select(torch.tensor([0, 0, 1, 1]))
    with torch.no_grad():
        trained = made.logits(batch.ids, batch.attention_mask, batch.masked, past)
    adapted = made.to_adapted_model()
    hidden = adapted.backbone.read_region(batch.ids, batch.attention_mask, batch.masked, past, adapted.gates)
    used = adapted.backbone.logits(hidden[:, :-1][batch.masked[:, 1:]])
    torch.testing.assert_close(trained, used, atol=2e-3, rtol=1e-3)
    made.save(tmp_path / "a.safetensors", {})
    loaded = load_adapter(base, tmp_path / "a.safetensors")
    torch.testing.assert_close(loaded.gates.right, adapted.gates.right)
    weights = loaded.backbone.model.state_dict()
    for name, weight in adapted.backbone.model.state_dict().items():
        assert torch.equal(weight, weights[name]), "the measured weights are those of the file"
    assert loaded.family is FAMILY


def test_gradients_reach_every_parameter(examples: list[TrainingExample]) -> None:
    made = student()
    batch = draw_batch([examples], (1.0,), Layout(made.base, FAMILY), 1, 2, seed=0, step=0)
    entropy, loss = compute_losses(made, batch, PLAN)
    loss.backward()
    assert entropy > 0
    for name, p in made.parameters.items():
        assert p.grad is not None and bool(p.grad.isfinite().all()), name
        assert bool(p.grad.any()), name
    assert not any(p.requires_grad for p in made.base.model.parameters())


def run(examples: list[TrainingExample], checkpoint: Path, steps: int) -> tuple[Student, list[TrainStep]]:
    """Run the first `steps` of the plan with a checkpoint after each, then stop as if killed."""
    made, seen = student(), []
    for progress in train(made, examples, PLAN, checkpoint, every=0.0):
        seen.append(progress)
        if progress.step == steps:
            break
    return made, seen


@pytest.mark.slow
def test_killed_training_continues_as_if_uninterrupted(
    examples: list[TrainingExample], tmp_path: Path
) -> None:
    whole, seen = run(examples, tmp_path / "a", PLAN.steps)
    run(examples, tmp_path / "b", 2)
    rest, later = run(examples, tmp_path / "b", PLAN.steps)
    assert [p.step for p in later] == [3, 4]
    assert [p.loss for p in later] == [p.loss for p in seen[2:]]
    for name, p in whole.parameters.items():
        assert torch.equal(p, rest.parameters[name]), name
    for other, known in ((student(), examples[:6]), (student(seed=1), examples)):
        with pytest.raises(ConfigError, match="another output"):
            next(train(other, known, PLAN, tmp_path / "b"))


@pytest.mark.slow
def test_number_of_steps_may_change_until_the_rate_falls(
    examples: list[TrainingExample], tmp_path: Path
) -> None:
    """With 8 steps the rate falls after step 6, with the 4 of PLAN after step 3."""
    whole, seen = run(examples, tmp_path / "a", PLAN.steps)
    longer = replace(PLAN, steps=8)
    for progress in train(student(), examples, longer, tmp_path / "b", every=0.0):
        if progress.step == 3:
            break
    rest, later = run(examples, tmp_path / "b", PLAN.steps)
    assert [p.loss for p in later] == [p.loss for p in seen[3:]]
    assert all(torch.equal(p, rest.parameters[name]) for name, p in whole.parameters.items())
    with pytest.raises(ConfigError, match=r"4 of 4 steps.*continue with 4 steps"):
        next(train(student(), examples, longer, tmp_path / "b"))


def test_rate_rises_stays_and_falls() -> None:
    plan = TrainPlan(steps=100, warmup=10, rate=1.0, decay=0.2)
    rates = [plan.compute_rate(step) for step in range(100)]
    assert rates[0] == 0.1 and set(rates[9:80]) == {1.0} and rates[-1] == pytest.approx(0.05)
    assert rates[80:] == sorted(rates[80:], reverse=True)


@pytest.mark.parametrize("what", ["span 4", pytest.param("ratio 0.5", marks=pytest.mark.slow)])
def test_held_out_loss_of_the_shipped_adapter(examples: list[TrainingExample], what: str) -> None:
    """The loss in one step is larger than left to right, and no loss is out of range."""
    base = load_base()
    found = measure(base, load_adapter(base), examples[:4], what)
    assert found is not None and found.prompts == 4
    assert 0 < found.left_to_right < found.at_once < 15
    assert 0 < found.base < 15 and 0 < found.without_traces < 15
    assert measure(base, load_adapter(base), examples[:1], "span 32") is None, "the prompt is too short"


def test_held_out_loss_by_hand(examples: list[TrainingExample]) -> None:
    """With one masked token, left to right and at once are the same forward pass."""
    base = load_base()
    adapted = load_adapter(base)
    layout = Layout(base, FAMILY)
    ids = base.encode(examples[0].prompt)
    piece = cut_window(examples[0].prompt, 3, 128, layout, ())
    reading = make_builtin_mode(base, adapted)
    (one,), (once,) = score_left_to_right(reading, piece, [3]), score_at_once(reading, piece, [3])
    row = torch.tensor(
        [[*piece.context, *piece.mask_row(CorruptionMask([i == 3 for i in range(len(ids))]), FAMILY).ids]]
    )
    _, past = base.read(row[:, : len(piece.context)], torch.ones(1, len(piece.context)).bool())
    region = row[:, len(piece.context) :]
    attention_mask, masked = torch.ones_like(region, dtype=torch.bool), region == FAMILY.mask
    hidden = adapted.backbone.read_region(region, attention_mask, masked, past, adapted.gates)
    logp = adapted.backbone.logits(hidden[0, 3]).log_softmax(-1)  # shifted: position 4 is predicted at 3
    assert one == once == pytest.approx(-float(logp[ids[3]]), abs=1e-3)


@pytest.mark.slow
def test_adapt_command_makes_an_adapter_that_denoises(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine" / "team.safetensors"
    flags = ["adapt", "--data", str(data), "--out", str(out), "--steps", "1", "--held-out", "1"]
    done = CliRunner().invoke(main, flags)
    assert done.exit_code == 0, done.output
    assert f"wrote {out}" in done.stdout and "held-out loss at step 1" in done.stderr
    card = (tmp_path / "mine" / "team.md").read_text()
    assert "11 prompts, 11 of them with conversations" in card and "shipped" in card
    lines = (tmp_path / "mine" / "team.log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 1]
    assert not out.with_suffix(".checkpoint.safetensors").exists()
    again = CliRunner().invoke(main, flags)
    assert again.exit_code == 2 and "--force" in again.stderr

    denoiser = make_denoiser(DenoiserConfig(model=f"builtin:{out}"))
    (fill,) = denoiser.infill((), [("Name the ", Hole("team", 2), ".")], 0)
    assert fill.texts[0]


def test_adapt_command_refuses_a_wrong_file_name(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["adapt", "--data", str(tmp_path), "--out", str(tmp_path / "a.txt")])
    assert done.exit_code == 2 and "must end with .safetensors" in done.stderr


def test_token_weights_by_row_and_by_neighbour() -> None:
    """A row of n masks has the weight sqrt(n); tokens after a mask have `interior` times more."""
    masked = torch.tensor([[False, True, True, True, True], [False, True, False, False, False]])
    batch = Batch(*[torch.zeros(0)] * 6, masked, *[torch.zeros(0)] * 2)
    even = weigh_tokens(batch, PLAN)
    assert even.sum().item() == pytest.approx(1)
    assert (even[:4].sum() / even[4]).item() == pytest.approx(2)
    inner = weigh_tokens(batch, replace(PLAN, balance=0.0, interior=3.0))
    assert (inner / inner[0]).tolist() == pytest.approx([1, 3, 3, 3, 1])
