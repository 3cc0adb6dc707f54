"""From settings to a denoiser: names, rules, and a whole run with a model from a folder."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import pytest

import remask
from fakes import checkpoints
from fakes.colours import Oracle, dataset, optimize, rows, search
from remask.api.build_models import describe_memory, make_denoiser
from remask.cli.check import examine
from remask.cli.settings import read
from remask.config import CommitName, DenoiserConfig, OrderName, make_config
from remask.dlm.build import ADAPTED_RULE, BuiltinDenoiser
from remask.dlm.schedule import COMMITS, ORDERS
from remask.errors import BackendError, ConfigError
from remask.files import read_toml


def test_the_names_of_the_settings_are_those_of_the_sampler() -> None:
    assert list(get_args(OrderName)) == list(ORDERS)
    assert list(get_args(CommitName)) == list(COMMITS)


def test_the_default_settings_are_the_builtin_models_own() -> None:
    denoiser = make_denoiser(DenoiserConfig())
    assert isinstance(denoiser, BuiltinDenoiser)
    assert denoiser.rule == ADAPTED_RULE


def test_every_setting_of_the_rule_arrives() -> None:
    values = {
        "temperature": 0.9,
        "position_temperature": 0.1,
        "order": "margin",
        "commit": "factor",
        "threshold": 0.8,
        "factor": 2.0,
        "entropy_bound": 0.5,
        "block": 8,
        "top_p": 0.7,
    }
    denoiser = make_denoiser(DenoiserConfig(guidance=0.5, steps=5, **values))
    assert isinstance(denoiser, BuiltinDenoiser)
    assert asdict(denoiser.rule).items() >= values.items()
    assert (denoiser.guidance, denoiser.steps) == (0.5, 5)


@pytest.mark.parametrize("key", ["order", "commit"])
def test_an_unknown_algorithm_is_refused_with_the_known_ones(key: str) -> None:
    with pytest.raises(ConfigError, match=f"denoiser.{key} is 'luck', but must be .*confidence|.*threshold"):
        make_config({"prompt": "x", "denoiser": {key: "luck"}}, "test")


@pytest.mark.parametrize("key", ["elastic", "noise", "doubt", "refresh_window"])
def test_keys_that_are_gone_are_refused_by_name(key: str) -> None:
    with pytest.raises(ConfigError, match=f"denoiser.{key}"):
        make_config({"prompt": "x", "denoiser": {key: 1}}, "test")


@pytest.mark.parametrize("model", ["", "local:", "chat:", "lama"])
def test_an_unknown_model_is_refused_with_the_known_ones(model: str) -> None:
    with pytest.raises(ConfigError, match=r"use builtin, builtin:ADAPTER, local:FOLDER.*chat:MODEL"):
        make_denoiser(DenoiserConfig(model=model))


def test_a_folder_is_looked_for_beside_its_toml(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "p.md").write_text("Name it.")
    file = tmp_path / "remask.toml"
    file.write_text('prompt = "p.md"\n[denoiser]\nmodel = "local:model"\n')
    assert read_toml(file)["denoiser"]["model"] == f"local:{tmp_path / 'model'}"
    file.write_text('prompt = "p.md"\n[denoiser]\nmodel = "local:GSAI-ML/LLaDA-8B-Instruct"\n')
    assert read_toml(file)["denoiser"]["model"] == "local:GSAI-ML/LLaDA-8B-Instruct"


def test_a_hub_id_needs_a_pinned_revision() -> None:
    with pytest.raises(BackendError, match="revision"):
        make_denoiser(DenoiserConfig(model="local:GSAI-ML/LLaDA-8B-Instruct"))


def test_a_run_with_a_model_from_a_folder(tmp_path: Path) -> None:
    folder = checkpoints.write(checkpoints.ALL["llada"], tmp_path)
    result = optimize(
        tmp_path / "run",
        data=dataset(120),
        denoiser=remask.Denoiser(f"local:{folder}", temperature=2.0, refresh=2, device="cpu"),
        max_calls=500,
        search=search(candidates=4, context_tokens=200),
    )
    assert result.verdict == "no evidence"  # random weights know no colours
    assert result.candidates > 0
    assert any("the denoiser works with an approximation" in warning for warning in result.warnings)


def test_a_denoiser_that_is_too_small_for_its_traces_is_refused_before_a_call(tmp_path: Path) -> None:
    folder = checkpoints.write(checkpoints.ALL["llada"], tmp_path)
    target = Oracle()
    said = r"reads 512 tokens at once, .* set search\.context_tokens to \d+ or less, or use another"
    with pytest.raises(ConfigError, match=said):
        optimize(
            tmp_path / "run", data=dataset(120), target=target, max_calls=500,
            denoiser=remask.Denoiser(f"local:{folder}", device="cpu"),
        )  # fmt: skip
    assert not target.calls and not (tmp_path / "run").exists()


def test_check_says_what_a_folder_needs(tmp_path: Path) -> None:
    folder = checkpoints.write(checkpoints.ALL["dream"], tmp_path)
    (tmp_path / "p.md").write_text("Name it. Be brief.")
    (tmp_path / "rows.csv").write_text(
        "input,label,split\n" + "".join(f"{r['input']},{r['label']},{r['split']}\n" for r in rows())
    )
    flags = {"data": tmp_path / "rows.csv", "split_column": "split", "denoiser": f"local:{folder}"}
    (tmp_path / "r.toml").write_text('prompt = "p.md"\n[search]\ncontext_tokens = 200\n')
    request = read(str(tmp_path / "r.toml"), flags)
    assert describe_memory(request.config.denoiser)
    about = [f.text for f in examine(request).findings if f.about == "denoiser"]
    assert any(re.search(r"about [1-9]\d* MB on|[1-9]\.\d GB on", text) for text in about)
    assert any("the weights were found" in text for text in about)
