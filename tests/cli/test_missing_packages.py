"""Without an optional package a command says in one sentence which extra brings it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROWS = [
    {"input": f"message {n}", "label": ("spam", "ham")[n % 2], "split": split}
    for split in ("train", "validation", "test")
    for n in range(20)
]
CHATS = [
    {
        "messages": [
            {"role": "system", "content": "Name the kind of the message."},
            {"role": "user", "content": f"message {n}"},
            {"role": "assistant", "content": "ham"},
        ]
    }
    for n in range(4)
]
DATA = "prompt.md --data rows.jsonl"
ENDPOINT = "--target openai:m --base-url http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        ("torch", "local", f"optimize {DATA} --max-calls 200"),
        ("torch", "local", f"optimize {DATA} {ENDPOINT} --max-calls 200"),
        ("torch", "local", f"check {DATA} {ENDPOINT} --denoiser local:somewhere --max-calls 200"),
        ("torch", "local", "refine prompt.md --traces chats.jsonl"),
        ("torch", "local", "adapt --data rows.jsonl -o a.safetensors"),
        ("transformers", "local", f"eval {DATA}"),
        ("openai", "openai", f"eval {DATA} {ENDPOINT}"),
        ("openai", "openai", f"check {DATA} {ENDPOINT}"),
        ("torch", "local", f"check {DATA}"),
        ("torch", "local", f"eval {DATA}"),
        ("inspect_ai", "inspect", "check --task a/b --prompt-from system --target inspect:openai/m"),
        ("inspect_ai", "inspect", "optimize prompt.md --task a/b --target inspect:openai/m"),
        ("inspect_ai", "inspect", "eval prompt.md --task a/b --target inspect:openai/m"),
        ("inspect_ai", "providers", f"eval {DATA} --target inspect:openai/m"),
        ("inspect_ai", "providers", f"check {DATA} --target inspect:openai/m"),
        ("inspect_ai", "providers", f"check {DATA} --denoiser inspect:openai/m"),
        ("inspect_ai", "providers", f"eval {DATA} --judge inspect:openai/m --rubric kind"),
        ("mlflow", "mlflow", f"optimize {DATA} --max-calls 200 --track mlflow"),
        ("mlflow", "mlflow", "export prompt.md --register p"),
        ("ray", "ray", f"eval {DATA} --executor ray"),
        ("yaml", "promptfoo", "optimize prompt.md --data tests.yaml"),
    ],
)
def test_command_without_a_package_names_the_extra(
    package: str, extra: str, command: str, tmp_path: Path
) -> None:
    (tmp_path / "prompt.md").write_text("Name the kind of the message.")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, CHATS)))
    (tmp_path / "tests.yaml").write_text("tests: []")
    code = f"import sys; sys.modules[{package!r}] = None; from remask.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if "pip install" in line]
    assert len(said) == 1
    assert f"remask[{extra}" in said[0]
    assert "Traceback" not in done.stderr


def test_a_socks_proxy_without_its_package_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "prompt.md").write_text("Name the kind of the message.")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    code = "import sys; sys.modules['socksio'] = None; from remask.cli import main; main()"
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", code, *f"eval {DATA} {ENDPOINT}".split()],
        capture_output=True, text=True, cwd=tmp_path, env={**kept, "ALL_PROXY": "socks5://127.0.0.1:9"},
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error: the SOCKS proxy of ALL_PROXY needs"), (
        done.stderr
    )
    assert done.stderr.count("\n") == 1 and "unset ALL_PROXY" in done.stderr
