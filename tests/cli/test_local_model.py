"""A model from disk as target, in every place where a target is named."""

import json
from pathlib import Path
from typing import Any

import pytest

import remask
from fakes import checkpoints
from fakes.checkpoints import BASES
from fakes.command import complaint
from fakes.command import remask as command
from fakes.gguf_files import CHATML, write_gguf

LABELS = ("positive", "negative")


@pytest.fixture
def place(here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows, a prompt, a checkpoint `tiny` and its GGUF file."""
    # One cache for all tests: the weights of the built-in model are unpacked into it.
    monkeypatch.setenv("REMASK_CACHE", str(tmp_path_factory.getbasetemp() / "weights"))
    folder = checkpoints.write(BASES["qwen2"], here).rename(here / "tiny")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": CHATML}))
    write_gguf(folder, here / "tiny.gguf")
    splits = ("train", "validation", "test")
    rows = [{"input": f"a word {i}", "label": LABELS[i % 2], "split": splits[i % 3]} for i in range(60)]
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (here / "p.md").write_text("Answer in one word.")
    return here


def score(*words: object) -> dict[str, Any]:
    result = command("eval", *words, "--json")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    found: dict[str, Any] = lines[-1]
    return found


@pytest.mark.parametrize("model", ["local:tiny", "local:tiny.gguf"])
def test_command_line_toml_and_python_score_alike(
    place: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ("--data", "rows.jsonl", "--split-column", "split")
    flags = score("p.md", *data, "--target", model)
    (place / "r.toml").write_text(
        f'prompt = "p.md"\n[data]\npath = "rows.jsonl"\nsplit = "split"\n[target]\nmodel = "{model}"\n'
    )
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")  # names in a file are relative to it
    file = score(place / "r.toml")
    rows = remask.Dataset(str(place / "rows.jsonl"), split="split")
    kind, _, name = model.partition(":")
    python = remask.evaluate("Answer in one word.", rows, target=f"{kind}:{place / name}")
    assert flags["score"] == file["score"]
    assert python.score.mean == pytest.approx(flags["score"]["mean"])


@pytest.mark.slow
def test_target_answers_in_its_own_words_where_it_shall_not_choose(place: Path) -> None:
    target = remask.Target(f"local:{place / 'tiny'}", choose=False, max_tokens=4)
    assert not remask.load_target(target).chooses
    assert remask.load_target(remask.Target("builtin", choose=False)).chooses is False
    assert remask.load_target(f"local:{place / 'tiny'}").chooses


@pytest.mark.slow
def test_check_says_memory_and_speed(place: Path) -> None:
    result = command("check", "p.md", "--data", "rows.jsonl", "--split-column", "split",
                     "--target", "local:tiny.gguf", "--max-calls", 400)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "tiny.gguf: about 1 MB on" in result.stdout
    assert "tiny.gguf: the weights were found" in result.stdout
    assert "tokens per second, from a timed sample" in result.stdout


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("local:nowhere", "nowhere: no such folder or file"),
        ("local:gone.gguf", "gone.gguf: no such file"),
        ("local:p.md", "is neither a folder nor a GGUF file"),
        ("local:", "use builtin, local:FOLDER, local:FILE.gguf, local:HUB_ID"),
        ("local:Qwen/Qwen3-0.6B", "local:HUB_ID@REVISION"),
        ("local:cut.gguf", "the file is cut short or damaged"),
    ],
)
def test_a_wrong_place_is_one_sentence(place: Path, model: str, words: str) -> None:
    content = (place / "tiny.gguf").read_bytes()
    (place / "cut.gguf").write_bytes(content[: len(content) // 2])
    for name in ("eval", "optimize"):
        result = command(name, "p.md", "--data", "rows.jsonl", "--split-column", "split", "--target", model)
        assert words in complaint(result)
    assert not (place / "runs").exists()


def test_check_names_an_empty_place(place: Path) -> None:
    result = command("check", "p.md", "--data", "rows.jsonl", "--split-column", "split", "--target", "local:")
    assert "PROBLEM  target 'local:' is unknown; use builtin, local:FOLDER" in result.stdout


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--metric", "exact"), "with 256 for the answer"),
        (("--metric", "exact", "--answer-tokens", "100"), ""),
        ((), ""),  # a label is chosen, whatever the length of answers
    ],
)
def test_check_finds_that_an_answer_has_no_room(place: Path, words: tuple[str, ...], problem: str) -> None:
    path = place / "tiny" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_position_embeddings": 200}))
    result = command("check", "p.md", "--data", "rows.jsonl", "--split-column", "split",
                     "--target", "local:tiny", *words)  # fmt: skip
    assert result.exit_code == (2 if problem else 0), result.stdout
    wrong = [line for line in result.stdout.splitlines() if " PROBLEM " in line]
    assert len(wrong) == bool(problem)
    if problem:
        assert wrong[0].startswith("target ") and problem in wrong[0] and "--answer-tokens" in wrong[0]


@pytest.mark.parametrize(
    ("target", "denoiser", "problem"),
    [
        (
            'model = "builtin"\nextra = {top_p = 0.5}',
            "",
            "extra is for a model behind an API, not for builtin",
        ),
        (
            'model = "local:tiny"\nbase_url = "http://127.0.0.1:9/v1"',
            "",
            "base_url is for a model behind an API",
        ),
        ('model = "builtin"\nrevision = "0"', "", "revision is for local:HUB_ID or local:FOLDER"),
        ('model = "builtin"', 'model = "chat:m"\nsteps = 4', "steps is for a model on this machine"),
    ],
)
def test_a_key_that_the_model_does_not_read_is_refused(
    place: Path, target: str, denoiser: str, problem: str
) -> None:
    (place / "r.toml").write_text(
        f'prompt = "p.md"\n[data]\npath = "rows.jsonl"\nsplit = "split"\n[target]\n{target}\n'
        f"[denoiser]\n{denoiser}\n"
    )
    result = command("check", "r.toml")
    assert result.exit_code == 2 and f"PROBLEM  {problem}" in result.stdout


def test_a_prompt_that_does_not_fit_is_refused_before_a_call(place: Path) -> None:
    (place / "p.md").write_text("careful " * 3000)
    result = command("optimize", "p.md", "--data", "rows.jsonl", "--split-column", "split",
                     "--target", "local:tiny")  # fmt: skip
    assert "more than the 2048 tokens that the target local:" in complaint(result)
