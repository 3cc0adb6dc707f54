"""`remask models`, and the flags that say how models are asked."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fakes import checkpoints
from fakes.command import complaint, remask
from remask.cli.list_models import DENOISERS, TARGETS
from remask.cli.settings import read
from remask.config import Config
from remask.dlm.families import FAMILIES
from remask.errors import ConfigError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def here(here: Path) -> Path:
    labels, splits = ("positive", "negative"), ("train", "validation", "test")
    rows = [{"input": f"row {i}", "label": labels[i % 2], "split": splits[i // 2 % 3]} for i in range(72)]
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (here / "p.md").write_text("Sort it.")
    return here


def read_flags(**flags: object) -> Config:
    return read("p.md", {"data": "rows.jsonl", **flags}).config


def test_models_lists_all_targets_and_families_with_a_line_that_is_an_option() -> None:
    found = json.loads(remask("models", "--json").stdout)
    text = remask("models").stdout
    assert len(found["targets"]) == len(TARGETS) and len(found["denoisers"]) == len(DENOISERS)
    options = remask("optimize", "--help").stdout
    for model in (*found["targets"], *found["denoisers"]):
        assert model["models"] in text and model["use"] in text
        assert all(flag in options for flag in re.findall(r"--[a-z-]+", model["use"]))
    # Each kind of name that help and errors tell is in the list.
    for kind in ("builtin", "local:", "openai:", "inspect:", "FILE.py:"):
        assert any(f"--target {kind}" in model.use for model in TARGETS)
    for kind in ("builtin", "local:", "mercury", "chat:", "inspect:"):
        assert any(f"--denoiser {kind}" in model.use for model in DENOISERS)
    assert not any("--task" in model.use for model in TARGETS)
    listed = {model.family for model in DENOISERS if model.family}
    assert listed == {name for name in FAMILIES if not name.startswith("sdar-b")}


def test_models_needs_no_large_package() -> None:
    code = (
        "import sys; from remask.cli.list_models import print_models; print_models(False); "
        "assert not {'torch', 'transformers', 'openai'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_flags_set_how_models_are_asked(here: Path) -> None:
    config = read_flags(
        concurrency=3, denoiser_steps=5, denoiser_temperature=0.4, target="openai:m", judge="openai:j",
        rubric="kind",
    )  # fmt: skip
    assert (config.target.concurrency, config.denoiser.steps, config.denoiser.temperature) == (3, 5, 0.4)
    assert config.metric.judge is not None and config.metric.judge.concurrency == 3


def test_revision_is_of_the_one_model_that_is_a_hub_id(here: Path) -> None:
    assert read_flags(target="local:a/b", revision=COMMIT).target.revision == COMMIT
    both = read_flags(target="local:a/b@" + COMMIT, denoiser="local:c/d", revision=COMMIT)
    assert both.target.revision == "" and both.denoiser.revision == COMMIT
    (here / "tiny").mkdir()
    folder = read_flags(target="local:tiny", denoiser="local:c/d", revision=COMMIT)
    assert folder.target.revision == "" and folder.denoiser.revision == COMMIT
    with pytest.raises(ConfigError, match="target and denoiser are both hub ids"):
        read_flags(target="local:a/b", denoiser="local:c/d", revision=COMMIT)
    with pytest.raises(ConfigError, match="no model is local:HUB_ID"):
        read_flags(revision=COMMIT)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--concurrency", 0), "--concurrency"),
        (("--denoiser-steps", 0), "--denoiser-steps"),
        (("--denoiser-temperature", 9), "--denoiser-temperature"),
        (("--denoiser-steps", "many"), "'many' is not a valid integer"),
    ],
)
def test_a_wrong_value_names_its_flag(here: Path, words: tuple[object, ...], said: str) -> None:
    assert said in complaint(remask("optimize", "p.md", "--data", "rows.jsonl", *words))


@pytest.mark.parametrize("option", ["--target", "--denoiser"])
@pytest.mark.parametrize("place", ["nowhere", "models/nowhere", "./models/nowhere", "/no/where"])
def test_check_says_that_a_folder_is_missing(here: Path, option: str, place: str) -> None:
    result = remask("check", "p.md", "--data", "rows.jsonl", option, f"local:{place}")
    assert result.exit_code == 2
    assert re.search(rf"^{option[2:]} +PROBLEM +{re.escape(place)}: .*no such folder", result.stdout, re.M)


def test_check_finds_a_window_that_is_too_small_and_says_what_to_change(here: Path) -> None:
    checkpoints.write(checkpoints.ALL["llada"], here).rename(here / "LLaDA-tiny")
    (here / "p.md").write_text("Sort it. " * 900)
    (here / "t.py").write_text("def respond(messages):\n    raise AssertionError('asked')\n")
    result = remask("check", "p.md", "--data", "rows.jsonl", "--split-column", "split", "--target",
                    "t.py:respond", "--denoiser", f"local:{here / 'LLaDA-tiny'}")  # fmt: skip
    assert result.exit_code == 2
    assert re.search(
        r"^denoiser +PROBLEM .* reads [\d,]+ tokens at once, but the prompt has", result.stdout, re.M
    )
    assert "shorten the prompt" in result.stdout or "set search.context_tokens to" in result.stdout
