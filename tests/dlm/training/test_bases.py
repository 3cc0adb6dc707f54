"""Other bases: tiny Llama, Qwen2 and Qwen3 checkpoints, adapted and used.

The weights are random, so the fills are not sensible; training, refusals and equality are real.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import save_file

import remask
from fakes import checkpoints, write_lines
from fakes.checkpoints import ALL, BASES
from fakes.colours import dataset, optimize, search
from remask.api.build_models import describe_memory, make_denoiser
from remask.cli import main
from remask.cli.settings import read
from remask.config import DenoiserConfig
from remask.dlm.adapter import SHIPPED_ADAPTER, load_adapter
from remask.dlm.build import Base, BuiltinDenoiser, find_base, make_builtin_mode
from remask.dlm.families import BUILTIN
from remask.dlm.layout import Layout
from remask.dlm.training.batches import draw_batch
from remask.dlm.training.corpus import TrainingExample, read_examples
from remask.dlm.training.student import Student, init_parameters
from remask.dlm.training.train import TrainPlan, TrainStep, compute_losses, train
from remask.errors import BackendError, ConfigError
from remask.files import read_toml
from remask.ports import Hole
from remask.types import Trace

PLAN = TrainPlan(steps=4, tasks=2, rows=4, warmup=1, rate=1e-2, rank=4, alpha=8.0)
PROMPT = "You are a careful assistant. Answer in one word: positive or negative."
HOLES = [("You are a ", Hole("careful", 6), " assistant.")]


@pytest.fixture(scope="module")
def load(checkpoint: Callable[[str], Path]) -> Callable[[str], Base]:
    return cache(lambda name: find_base(f"local:{checkpoint(name)}", device="cpu", dtype=torch.float32))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Prompts that differ in a number only, so that the model can memorise them."""
    examples = [{"input": f"A film {i}.", "output": "positive"} for i in range(3)]
    rows = [{"prompt": f"{PROMPT} {n}", "examples": examples} for n in range(12)]
    return write_lines(tmp_path / "rows.jsonl", *rows)


@pytest.fixture
def examples(data: Path) -> list[TrainingExample]:
    return read_examples([data])


def student(base: Base, seed: int = 0) -> Student:
    """As after some training: nothing is zero, and a file can store the parameters exactly."""
    made = Student(
        base.backbone, base.family, PLAN.rank, PLAN.alpha, init_parameters(base.backbone, PLAN.rank, seed)
    )
    generator = torch.Generator().manual_seed(seed)
    for name, p in made.parameters.items():
        if name.endswith(".b"):
            p.data = torch.randn(p.shape, generator=generator) * 0.1
        p.data = p.data.to(torch.bfloat16).float()
    return made


@pytest.mark.parametrize("name", BASES)
def test_training_and_use_have_equal_logits(
    load: Callable[[str], Base], examples: list[TrainingExample], tmp_path: Path, name: str
) -> None:
    """The logits of training equal those of the saved adapter in a denoiser."""
    base = load(name)
    made = student(base)
    made.save(tmp_path / "a.safetensors", {})
    loaded = load_adapter(base.backbone, tmp_path / "a.safetensors", base.family)
    mode = make_builtin_mode(base.backbone, loaded)
    layout = Layout(base.backbone, base.family)
    batch = draw_batch([examples], (1.0,), layout, 1, 4, seed=3, step=0, elastic=True)
    _, memory = base.backbone.read(batch.contexts, batch.contexts_mask)
    with torch.no_grad():
        trained = made.logits(
            batch.ids, batch.attention_mask, batch.masked, memory.select(torch.zeros(4, dtype=torch.long))
        )
    started = mode.begin(tuple(batch.contexts[0].tolist()), 0, batch.attention_mask)
    torch.testing.assert_close(trained, started.logits(batch.ids), atol=2e-3, rtol=1e-3)
    plain = base.backbone.model.state_dict()
    changed = {
        key
        for key, weight in loaded.backbone.model.state_dict().items()
        if not torch.equal(weight, plain[key])
    }
    assert changed == {key for key in plain if key.endswith("_proj.weight")}
    assert mode.family.name == name


@pytest.mark.parametrize("name", ["llama3", "qwen2", "qwen3"])
def test_gradients_reach_the_trained_parameters_only(
    load: Callable[[str], Base], examples: list[TrainingExample], name: str
) -> None:
    base = load(name)
    made = student(base)
    layout = Layout(base.backbone, base.family)
    batch = draw_batch([examples], (1.0,), layout, PLAN.tasks, PLAN.rows, seed=0, step=0)
    _, loss = compute_losses(made, batch, PLAN)
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in made.parameters.values())
    assert not any(p.requires_grad for p in base.backbone.model.parameters())


def run(
    base: Base, examples: list[TrainingExample], file: Path, steps: int
) -> tuple[Student, list[TrainStep]]:
    """Run the first `steps` of the plan with a checkpoint after each, then stop as if killed."""
    made, seen = student(base), []
    for progress in train(made, examples, PLAN, file, every=0.0):
        seen.append(progress)
        if progress.step == steps:
            break
    return made, seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_killed_training_continues_as_if_uninterrupted(
    checkpoint: Callable[[str], Path], examples: list[TrainingExample], tmp_path: Path, dtype: torch.dtype
) -> None:
    base = find_base(f"local:{checkpoint('qwen2')}", device="cpu", dtype=dtype)
    whole, seen = run(base, examples, tmp_path / "a", PLAN.steps)
    run(base, examples, tmp_path / "b", 2)
    rest, later = run(base, examples, tmp_path / "b", PLAN.steps)
    assert [p.loss for p in later] == [p.loss for p in seen[2:]]
    for key, p in whole.parameters.items():
        assert torch.equal(p, rest.parameters[key]), key
    other = find_base(f"local:{checkpoint('qwen3')}", device="cpu", dtype=dtype)
    with pytest.raises(ConfigError, match="another output"):
        next(train(student(other), examples, PLAN, tmp_path / "b"))


def adapt(folder: Path, data: Path, out: Path, *more: str) -> str:
    """Standard error of a short training on the command line."""
    flags = ["--data", str(data), "--out", str(out), "--held-out", "1", "--rank", "8", *more]
    done = CliRunner().invoke(main, ["adapt", "--base", f"local:{folder}", *flags])
    assert done.exit_code == 0, done.output
    return done.stderr


@pytest.mark.parametrize("name", BASES)
def test_base_from_disk_learns_a_corpus_and_denoises(
    checkpoint: Callable[[str], Path], data: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "mine.safetensors"
    output = adapt(checkpoint(name), data, out, "--steps", "25", "--rate", "1e-2")
    lines = [json.loads(line) for line in out.with_suffix(".log.jsonl").read_text().splitlines()]
    loss = [line["loss"] for line in lines if "loss" in line]
    # The loss of random weights is that of a guess, log(320) = 5.8, or worse.
    assert sum(loss[-5:]) < 0.6 * sum(loss[:5]), loss
    (before, after) = (line["held_out"][0]["left_to_right"] for line in lines if "held_out" in line)
    assert after < 0.6 * before
    assert "held-out loss at step 25" in output
    card = out.with_suffix(".md").read_text()
    assert f"--denoiser local:{checkpoint(name).name} --adapter mine.safetensors" in card
    assert f"turns {checkpoint(name).name} into" in card

    config = DenoiserConfig(model=f"local:{checkpoint(name)}", adapter=str(out), device="cpu")
    denoiser = make_denoiser(config)
    assert isinstance(denoiser, BuiltinDenoiser)
    assert denoiser.identity.startswith(f"{name}/")
    context = (Trace("1", "A film 1.", "positive"),)
    fills = denoiser.infill(context, HOLES * 2, 0)
    assert all(fill.texts[0] for fill in fills)
    assert fills == make_denoiser(config).infill(context, HOLES * 2, 0)
    assert denoiser.score(context, PROMPT, [(0, 7)])[0] < 0


def test_adapter_is_continued(checkpoint: Callable[[str], Path], data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    adapt(checkpoint("qwen3"), data, first, "--steps", "2")
    adapt(checkpoint("qwen3"), data, second, "--steps", "2", "--from", str(first), "--rank", "3")
    with safe_open(first, "pt") as a, safe_open(second, "pt") as b:
        assert b.metadata()["rank"] == a.metadata()["rank"] == "8"
        assert b.metadata()["base_content"] == a.metadata()["base_content"]
        assert b.metadata()["base"] == "Qwen3-0.6B"


def test_base_from_the_hub_gives_an_adapter_for_its_folder(
    checkpoint: Callable[[str], Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its adapter can be used with the same files in a folder."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    checkpoints.in_hub_cache(checkpoint("qwen3"), tmp_path, "Qwen/Qwen3-0.6B", "c" * 40)
    out = tmp_path / "o.safetensors"
    flags = ["adapt", "--data", str(data), "--out", str(out), "--steps", "1", "--held-out", "0"]
    hub = ["--base", "local:Qwen/Qwen3-0.6B", "--revision", "c" * 40]
    done = CliRunner().invoke(main, [*flags, *hub])
    assert done.exit_code == 0, done.output
    card = out.with_suffix(".md").read_text()
    assert f"--denoiser local:Qwen/Qwen3-0.6B --adapter {out.name}" in card and "c" * 40 in card
    make_denoiser(DenoiserConfig(model=f"local:{checkpoint('qwen3')}", adapter=str(out)))


# -- whose adapter it is --------------------------------------------------------------------------


def test_adapter_of_another_base_is_refused(
    load: Callable[[str], Base], checkpoint: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "qwen2.safetensors"
    qwen2 = load("qwen2")
    student(qwen2).save(file, {"base": qwen2.name})
    load_adapter(qwen2.backbone, file, qwen2.family)
    other = checkpoints.write(BASES["qwen2"], tmp_path, seed=1)  # equal sizes, other numbers
    wrong = {"llama": checkpoint("llama3"), "qwen3": checkpoint("qwen3"), "qwen2": other}
    made_for = f"made for Qwen2.5-0.5B-Instruct ({qwen2.backbone.content}), but the base is "
    for family, folder in wrong.items():
        with pytest.raises(BackendError) as caught:
            make_denoiser(DenoiserConfig(model=f"local:{folder}", adapter=str(file)))
        assert f"{file}: {made_for}{family}/" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(BackendError, match=r"but the base is smollm2-135m-instruct/"):
        make_denoiser(DenoiserConfig(model=f"builtin:{file}"))
    flags = ["adapt", "--base", f"local:{checkpoint('qwen2')}", "--data", str(data), "--out"]
    done = CliRunner().invoke(main, [*flags, str(tmp_path / "o.safetensors"), "--from", "shipped"])
    assert done.exit_code == 2 and "made for SmolLM2-135M-Instruct" in done.stderr


def test_adapter_without_base_content_is_for_the_builtin_model(
    load: Callable[[str], Base], tmp_path: Path
) -> None:
    with safe_open(SHIPPED_ADAPTER, "pt") as file:
        header = file.metadata()
        older = {key: text for key, text in header.items() if not key.startswith("base")}
        some = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    base = find_base("builtin")
    assert base.family is BUILTIN
    save_file(some, tmp_path / "old.safetensors", older)
    old, new = (BuiltinDenoiser(base.backbone, p) for p in (tmp_path / "old.safetensors", SHIPPED_ADAPTER))
    assert old.infill((), HOLES, 0) == new.infill((), HOLES, 0)
    save_file(some, tmp_path / "new.safetensors", {**header, "base_content": base.backbone.content})
    load_adapter(base.backbone, tmp_path / "new.safetensors")
    with pytest.raises(BackendError, match=r"made for smollm2-135m \(smollm2-135m\), but"):
        load_adapter(load("smollm2").backbone, tmp_path / "old.safetensors", load("smollm2").family)


# -- names and settings ---------------------------------------------------------------------------


def test_adapter_is_needed_by_left_to_right_models_only(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(BackendError, match=r"adapt --base local:.*--adapter, or denoiser.adapt"):
        make_denoiser(DenoiserConfig(model=f"local:{checkpoint('qwen3')}"))
    llada = f"local:{checkpoints.write(ALL['llada'], tmp_path)}"
    with pytest.raises(BackendError, match=r"llada is a diffusion model already; use it with"):
        make_denoiser(DenoiserConfig(model=llada, adapter="x.safetensors"))
    for model in ("builtin", "builtin:x.safetensors", "mercury"):
        with pytest.raises(
            ConfigError, match=f"denoiser.adapter is for a base model that is local:.*, not for {model}"
        ):
            make_denoiser(DenoiserConfig(model=model, adapter="x.safetensors"))


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("builtin:x.safetensors", "use builtin, local:FOLDER, or local:HUB_ID"),
        ("Qwen/Qwen3-0.6B", "use builtin, local:FOLDER, or local:HUB_ID"),
        ("local:", "use builtin, local:FOLDER, or local:HUB_ID"),
        ("local:Qwen/Qwen3-0.6B", "give the 40 hexadecimal digits of a commit"),
    ],
)
def test_unknown_base_is_one_sentence(data: Path, tmp_path: Path, base: str, words: str) -> None:
    out = str(tmp_path / "o.safetensors")
    done = CliRunner().invoke(main, ["adapt", "--base", base, "--data", str(data), "--out", out])
    assert done.exit_code == 2 and words in done.stderr
    assert done.stderr.count("\n") == 1


def test_builtin_base_has_no_revision() -> None:
    with pytest.raises(ConfigError, match="has no revision"):
        find_base("builtin", "0" * 40)


def test_base_with_a_short_context_is_refused(tmp_path: Path) -> None:
    tiny = BASES["qwen3"]
    short = replace(tiny, settings={**tiny.settings, "max_position_embeddings": 1024})
    folder = checkpoints.write(short, tmp_path)
    with pytest.raises(BackendError, match=r"reads 1024 tokens at once, but .* take up to 1628"):
        find_base(f"local:{folder}")


def test_adapter_file_comes_from_the_flag_or_the_key(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.md").write_text("Name it.")
    (tmp_path / "remask.toml").write_text(
        'prompt = "p.md"\n[denoiser]\nmodel = "local:base"\nadapter = "mine.safetensors"\n'
    )
    assert read_toml(tmp_path / "remask.toml")["denoiser"]["adapter"] == str(tmp_path / "mine.safetensors")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("input,label\n" + "a,b\n" * 40)
    flags = {"data": "rows.csv", "denoiser": f"local:{checkpoint('qwen2')}", "adapter": "own.safetensors"}
    config = read(str(tmp_path / "p.md"), flags).config.denoiser
    assert config.adapter == str(tmp_path / "own.safetensors")
    alone = config.model_copy(update={"adapter": ""})
    assert describe_memory(config).startswith(config.model) and describe_memory(alone)


def test_run_with_an_adapted_base(
    load: Callable[[str], Base], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    file = tmp_path / "a.safetensors"
    student(load("llama3")).save(file, {})
    result = optimize(
        tmp_path / "run",
        data=dataset(120),
        denoiser=remask.Denoiser(
            f"local:{checkpoint('llama3')}", adapter=str(file), temperature=2.0, steps=4, device="cpu"
        ),
        max_calls=300,
        search=search(candidates=2),
    )
    assert result.verdict == "no evidence"  # random weights know no colours
    assert result.candidates > 0
