"""A promptfooconfig.yaml as rows and metric: its tests, its plain assertions, and its prompt.

Follows promptfoo's documentation of configurations, tests and CSV files (promptfoo.dev/docs; 2026).
Nothing of the file is run: Nunjucks is read as far as {{name}}, and whatever needs code, a model or
a network is refused with the place and what to do. Knows nothing of targets and prompts' syntax.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from remask.data.dataset import FRACTIONS, Columns, Dataset, load
from remask.data.placeholders import PROMPT, Variable
from remask.errors import DataError
from remask.tasks.assertions import Demands, Suite
from remask.tasks.promptfoo_files import SUFFIXES, parse_yaml, read_config, read_text
from remask.tasks.promptfoo_tests import NAME, TEXTS, cut, read_tests

METRIC = "promptfoo"  # the name of this metric in settings
ANSWER = "promptfoo assertions"  # the column for the demands while rows are loaded


@dataclass(frozen=True, slots=True)
class Asked:
    """How the configuration asks its model."""

    prompt: str | None  # to optimise; None: it states none
    role: Literal["system", "user"]  # the message that holds it
    input: str  # template of the user's message over columns, as dataset.Columns takes it


def load_config(
    path: str | Path,
    input: str,
    split: str | None = None,
    fractions: Sequence[float] = FRACTIONS,
) -> tuple[Dataset, Suite]:
    """The tests as examples, and the metric that holds each to its assertions.

    Example.expected is the text that `equals` (or else the only `contains`) states, None where
    there is none. Splits as in `dataset.load`. Raises DataError and ConfigError.
    """
    tests = read_tests(Path(path))
    names = sorted({name for test in tests for name in test.row})
    rows = [{**dict.fromkeys(names, ""), **t.row, ANSWER: _key(t.demands)} for t in tests]
    found = load(rows, Columns(input, ANSWER, split), fractions)
    demands = {_key(test.demands): test.demands for test in tests}
    suite = Suite({e.id: demands[e.expected or ""] for e in found.examples})
    examples = tuple(replace(e, expected=suite.demands[e.id].desired) for e in found.examples)
    labels = tuple(sorted({e.expected for e in examples if e.expected is not None}))
    return Dataset(examples, found.warnings, labels), suite


def asked(path: str | Path, prompt: str | None = None) -> Asked:
    """How the configuration at `path` asks; `prompt` (the user's own) stands for the one in it.

    A prompt that is a chat gives its system message and, as template, its user message. A text is
    the user's message itself, with its variables in it. Raises DataError.
    """
    path = Path(path)
    names = list(dict.fromkeys(name for test in read_tests(path) for name in test.row))
    if not names:
        raise DataError("no test has variables, so there is one input only; add vars", path)
    shown = f"{{{names[0]}}}" if len(names) == 1 else "\n".join(f"{n}: {{{n}}}" for n in names)
    stated = _prompts(read_config(path), path)
    if prompt is None and len(stated) > 1:
        raise DataError(
            f"has {len(stated)} prompts; save the one to optimise as a file and name it: "
            "remask optimize PROMPT.md --data " + path.name,
            path,
        )
    text = stated[0] if stated else None
    chat = _chat(text, path) if text is not None else None
    if chat is not None and chat[0]:
        own = prompt or _editable(chat[0], names, path)
        return Asked(own, "system", _template(chat[1], path))
    if prompt is None:
        said = chat[1] if chat else text
        return Asked(said if said is None else _editable(said, names, path), "user", shown)
    holds = any(name in names for name in NAME.findall(prompt))
    return Asked(prompt, "user" if holds else "system", shown)


def _key(demands: Demands) -> str:
    """One text for equal demands: part of an example's identity."""
    return json.dumps(
        [[(a.name, a.value, a.weight) for a in demands.assertions], demands.threshold],
        ensure_ascii=False,
        sort_keys=True,
    )


# --- prompts


def _prompts(config: Mapping[str, Any], path: Path) -> list[str]:
    stated = config.get("prompts", [])
    entries = list(stated) if isinstance(stated, list | dict) else [stated]
    found: list[str] = []
    for entry in entries:
        said = entry
        if isinstance(entry, dict):
            said = entry.get("raw") or entry.get("id") or entry.get("label")
        if not isinstance(said, str):
            raise DataError(f"the prompt {said!r:.60} is no text; write it as one", path)
        found += _prompt(said, path)
    return found


def _prompt(said: str, path: Path) -> list[str]:
    """A text itself, or what is in the file that it names."""
    named = said.removeprefix("file://")
    kind = Path(named).suffix.lower()
    known = (*TEXTS, ".json", *SUFFIXES)
    file = path.parent / named
    if said == named and ("\n" in said or kind not in known or not file.is_file()):
        return [said]
    if kind not in known:
        raise DataError(
            f"the prompt {said!r} needs code to run or is of another kind; save it as text or as "
            "a chat in JSON",
            path,
        )
    text = read_text(file, path)
    parts = re.split(r"^---\s*$", text, flags=re.MULTILINE) if kind in TEXTS else [text]
    return [part.strip() for part in parts if part.strip()]


def _chat(text: str, path: Path) -> tuple[str, str] | None:
    """(system, user) of a chat in JSON or YAML; None where the prompt is a plain text."""
    stripped = text.lstrip()
    if not (stripped.startswith(("[", "- role", "- content"))):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None if stripped.startswith("[") else parse_yaml(text, path)
    if not isinstance(found, list) or not all(isinstance(m, dict) and "role" in m for m in found):
        return None
    roles = [m["role"] for m in found]
    texts = [m.get("content") for m in found]
    if roles not in (["system", "user"], ["developer", "user"], ["user"]) or not all(
        isinstance(t, str) for t in texts
    ):
        raise DataError(
            f"the prompt is a chat of {', '.join(map(str, roles))}; only a system message and one "
            "user message in text can be optimised",
            path,
        )
    return (str(texts[0]), str(texts[1])) if len(texts) == 2 else ("", str(texts[0]))


def _template(text: str, path: Path) -> str:
    """A Nunjucks text with plain variables as a template of dataset.render."""
    return "".join(
        plain.replace("{", "{{").replace("}", "}}") + (f"{{{m['name']}}}" if m else "")
        for plain, m in _cut(text, "the user message of the prompt", path)
    )


def _editable(text: str, names: Collection[str], path: Path) -> str:
    """A Nunjucks text as a prompt of remask, which knows no raw blocks."""
    parts = _cut(text, "the prompt", path)
    for plain, _ in parts:
        for found in PROMPT.read(plain, names):
            if isinstance(found, Variable):
                raise DataError(
                    f"the prompt holds {found.source} as text, which remask would fill; give the "
                    "variable another name",
                    path,
                )
    return "".join(plain + (m[0].replace("-", "") if m else "") for plain, m in parts)


def _cut(text: str, what: str, path: Path) -> list[tuple[str, re.Match[str] | None]]:
    try:
        return cut(text)
    except ValueError as error:
        raise DataError(f"{what} holds {error}; write the text out", path) from None
