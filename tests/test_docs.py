"""What pages and docstrings name exists: links, modules, and files of this checkout."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import remask
from fakes import ROOT

SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = sorted(
    path
    for path in (
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        *(ROOT / "src").rglob("*.md"),
    )
    if path.name != "log.md"  # history: it names what there was
)
FOLDERS = ("src", "tests", "benchmarks", "docs", "examples")
# Tables that a benchmark writes say which command made them at which commit.
GENERATED = re.compile(r"<!-- (\w+):begin -->.*?<!-- \1:end -->", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MODULE = re.compile(r"(?<![\w./-])remask((?:\.[A-Za-z_]\w*)+)")
IN_FOLDER = re.compile(rf"(?<![\w./-])((?:{'|'.join(FOLDERS)})/[\w./-]+)")
SCRIPT = re.compile(r"(?<![\w.@/-])([a-z_][a-z_/0-9]*\.(?:py|sh))(?![\w@])")
FILES_OF_OTHERS = {  # which docstrings cite
    *("load/serializable.py", "messages/base.py", "dspy/predict/predict.py"),
    "src/evaluatorHelpers.ts",
}
WRITTEN = {"target.py"}  # by `remask init`
GONE = (
    *("remask serve", "remask study", "refresh_window", "search.combine", "remask.Refined"),
    *("--dlm", "[dlm]", "settings={", "hooks=", "`embedded`"),
)
REPOSITORY = re.compile(r"https://github\.com/remask/remask/(?:blob|tree)/main/(.*)")
MAX_TERMS = 15  # of the glossary


def text_of(page: Path) -> str:
    """The page without its generated parts."""
    return GENERATED.sub("", page.read_text(encoding="utf-8"))


def docstrings(path: Path) -> str:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    found = (ast.get_docstring(node) for node in nodes if isinstance(node, documented))
    return "\n".join(text for text in found if text)


@cache
def all_files() -> tuple[str, ...]:
    """Every file of the checkout, each path with a slash before it."""
    paths = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    return tuple(f"/{path.relative_to(ROOT).as_posix()}" for path in paths)


def is_there(dotted: str) -> bool:
    """Whether `.a.b.name` is a module of remask, or a name in one."""
    place = ROOT / "src" / "remask"
    names = dotted.split(".")[1:]
    while names and ((place / names[0]).is_dir() or (place / f"{names[0]}.py").is_file()):
        place = place / names.pop(0)
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not names:
        return True
    if file == ROOT / "src" / "remask" / "__init__.py":
        return names[0] in remask.__all__
    defined = rf"^(?:async def|def|class) {names[0]}\b|^{names[0]}\b.*="
    return bool(re.search(defined, file.read_text(encoding="utf-8"), re.MULTILINE))


def missing(text: str) -> Iterator[str]:
    """What the text names and the checkout does not have."""
    for found in MODULE.finditer(text):
        if found[1] not in (".toml", ".schema.json") and not is_there(found[1]):
            yield found[0]
    for found in IN_FOLDER.finditer(text):
        if not (ROOT / found[1].rstrip(".")).exists():
            yield found[1]


def missing_scripts(text: str) -> Iterator[str]:
    """Files of Python and shell that are named by the end of their path, such as dlm/build.py."""
    for found in SCRIPT.finditer(text):
        if not any(file.endswith(f"/{found[1]}") for file in all_files()):
            yield found[1]


def anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        place, _, anchor = link.partition("#")
        if ours := REPOSITORY.match(place):  # absolute, so that it works on PyPI too
            target = ROOT / ours[1]
        elif re.match(r"\w+:", link):  # another address
            continue
        else:
            target = page.parent / place if place else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    text = text_of(page)
    assert not sorted({*missing(text), *missing_scripts(text)} - WRITTEN)


def test_pages_speak_of_nothing_that_is_gone() -> None:
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            assert not [word for word in GONE if word in page.read_text(encoding="utf-8")], page


def test_the_glossary_is_short() -> None:
    text = (ROOT / "docs" / "background" / "glossary.md").read_text(encoding="utf-8")
    assert 12 <= len(re.findall(r"^## ", text, re.MULTILINE)) <= MAX_TERMS


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_docstring_names_exists(path: Path) -> None:
    if "data/formats" in path.as_posix():  # these cite the files of the tools that they read
        return
    text = docstrings(path)
    assert not sorted({*missing(text), *missing_scripts(text)} - FILES_OF_OTHERS - WRITTEN)
