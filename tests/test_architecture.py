"""Who may import whom, how large things may grow, and what `import remask` may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "remask"
FILES = sorted(ROOT.rglob("*.py"))

GROUND = {"errors", "identity", "trace", "prompt", "placeholders", "ports", "evidence"}
ALLOWED = {
    "errors": set(),
    "identity": set(),
    "evidence": set(),
    "text": set(),
    "trace": {"errors"},
    "prompt": {"errors", "identity", "text"},
    "placeholders": {"errors"},
    "ports": {"prompt", "trace"},
    "budget": {"errors"},
    "events": {"prompt"},
    "hooks": {"budget", "events"},
    "mask": {"errors", "prompt", "ports"},
    "guard": {"errors", "prompt", "text"},
    "condition": {"trace", "ports", "text"},
    "backbone": {"errors", "identity"},
    "dlm": GROUND | {"backbone", "text"},
    "target": GROUND | {"backbone", "budget", "store", "text"},
    "ingest": {"errors", "trace", "text", "identity", "placeholders"},
    "task": GROUND,
    "packing": GROUND | {"condition", "text"},
    "demos": GROUND | {"condition", "guard"},
    "propose": GROUND | {"condition", "guard", "mask"},
    "search": GROUND | {"events"},
    "queries": GROUND | {"text"},
    "gather": {"errors", "identity", "ingest", "trace"},
    "refinement": GROUND | {"condition", "propose"},
    "refined": GROUND | {"budget", "refinement"},
    "study": GROUND | {"propose"},
    "store": {"errors", "identity", "budget"},
    "config": {"errors"},
    "result": GROUND | {"budget", "events"},
    "report": GROUND | {"budget", "events", "refined", "result", "store", "study"},
    "export": GROUND | {"integrations"},
    "serve": GROUND | {"backbone", "target"},
}
ROOTS = {
    "run",
    "refining",
    "studying",
    "sourcing",
    "wire",
    "opening",
    "inspecting",
    "denoisers",
    "proposers",
}
ANYTHING = {"__init__", "cli", "integrations", "adapt"} | ROOTS  # the roots and the faces


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "remask":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("remask."):
            names.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("remask.")}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"relative import in {path}"
    return names & ({p.stem for p in ROOT.glob("*.py")} | {p.name for p in ROOT.iterdir()})


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    name = room(path)
    if name in ANYTHING:
        return
    assert name in ALLOWED, f"new room {name}: say in this table what it may know"
    extra = imported_rooms(path) - ALLOWED[name] - {name, "__version__"}
    assert not extra, f"{path.name} may not import {sorted(extra)}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_grows_without_a_decision(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") <= 400, f"{path}: over 400 lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{path}: {node.name} has {length} lines"


def test_importing_remask_loads_nothing_heavy() -> None:
    code = (
        "import sys, remask, remask.cli; "
        "heavy = {'torch', 'transformers', 'scipy', 'openai', 'jinja2', 'gepa', 'dspy', 'mlflow'}; "
        "heavy &= set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_public_names_exist() -> None:
    import remask

    for name in remask.__all__:
        assert getattr(remask, name) is not None
