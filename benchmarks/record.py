"""What all benchmarks share: where figures come from, how they are stored, how pages show them."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from remask.files import write

ROOT = Path(__file__).parents[1]  # the checkout
RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs"

# Committed results are never edited, and some were written before names changed.
OLD_KEYS = {
    "dlm": "denoiser",
    "dlm, best of 8": "denoiser, best of 8",
    "embedded": "builtin",
    "objection": "violation",
}
OLD_LOSS_KEYS = {  # the fields of a HeldOutLoss
    "what": "pattern",
    "dlm": "left_to_right",
    "dlm_parallel": "at_once",
    "base_left": "base",
    "no_traces": "without_traces",
    "first": "first_token",
    "n": "prompts",
}
OLD_NAMES = {"blame": "attribution", "whole": "rewrite", "embedded": "builtin"}
NAMING_KEYS = {"masker", "arm", "target", "denoiser"}  # keys whose values are such names


# -- the command line -----------------------------------------------------------------------------


def command_of(file: str) -> str:
    """The command that runs a benchmark: benchmarks/denoiser/steps.py → benchmarks.denoiser.steps.

    >>> command_of(str(ROOT / "benchmarks" / "search" / "__main__.py"))
    'python -m benchmarks.search'
    """
    parts = Path(file).resolve().relative_to(ROOT).with_suffix("").parts
    return f"python -m {'.'.join(parts).removesuffix('.__main__')}"


def make_parser(file: str, description: str | None) -> argparse.ArgumentParser:
    """A parser that says how the module `file` is called; `description` is its docstring."""
    return argparse.ArgumentParser(
        prog=command_of(file), description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_page_option(parser: argparse.ArgumentParser) -> None:
    """Add --page, which every benchmark with a page or a picture has."""
    parser.add_argument(
        "--page",
        action="store_true",
        help="Rewrite the page and its picture from the committed results. Nothing is measured.",
    )


# -- where figures come from ----------------------------------------------------------------------


def describe_run(file: str, words: Sequence[str] | None, *folders: Path) -> dict[str, str]:
    """Command, commit and machine of a run; the command without the names of `folders`.

    file: the module. words: its arguments, None for those of the process. Call this before the
    work begins: the commit must be that of the code which does it.
    """
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    command = " ".join([command_of(file), *(sys.argv[1:] if words is None else words)])
    return {
        "command": hide_folders(command, *folders),
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip(),
        "machine": describe_machine(),
    }


def hide_folders(command: str, *folders: Path) -> str:
    """The command without the folders of this machine."""
    for folder in folders:
        command = re.sub(re.escape(str(folder)) + r"(?=\s|$)", "FOLDER", command)
    return command


def describe_machine() -> str:
    """The processor's own name where Linux tells it, cores, system and Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = (f"{platform.machine()} {name}".strip(), f"{cores} cores", platform.system())
    return ", ".join((*parts, f"Python {platform.python_version()}"))


# -- results --------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """Results of a file in the names of today; see OLD_KEYS. SystemExit where there is no file."""
    if not path.is_file():
        raise SystemExit(f"{path}: there are no results; run the benchmark first")
    return json.loads(path.read_text("utf-8"), object_hook=_rename)


def _rename(values: dict[str, Any]) -> dict[str, Any]:
    old = OLD_LOSS_KEYS if "dlm_parallel" in values else OLD_KEYS
    renamed = {old.get(key, key): value for key, value in values.items()}
    for key in NAMING_KEYS & renamed.keys():
        if isinstance(renamed[key], str):
            renamed[key] = OLD_NAMES.get(renamed[key], renamed[key])
    return renamed


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all; it is on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, f"{text}\n", force=True)


def write_json(path: Path, value: Any) -> None:
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False))


# -- pages ----------------------------------------------------------------------------------------


def write_svg(figure: "Figure", path: Path) -> None:
    """Write the same bytes for the same figure; text stays text."""
    import matplotlib  # most benchmarks draw nothing

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "remask"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def link_picture(words: str, picture: Path, page: Path) -> str:
    """Markdown that shows `picture` on `page`."""
    return f"![{words}]({Path(os.path.relpath(picture, page.parent)).as_posix()})"


def format_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown, all columns but the first aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def write_blocks(page: Path, blocks: Mapping[str, str]) -> None:
    """Replace the generated blocks of a page, by name. SystemExit where a mark is missing."""
    text = page.read_text("utf-8")
    for name, block in blocks.items():
        text = place_block(text, name, block)
    write_whole(page, text.removesuffix("\n"))


def place_block(text: str, name: str, block: str) -> str:
    """`text` with `block` between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.

    Raises SystemExit where there are no such marks.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"the page needs the marks {begin} and {end}")
    return f"{before}{begin}\n{block}\n{end}{after}"
