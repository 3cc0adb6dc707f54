"""A griffe extension for mkdocs.yml: examples of docstrings become blocks of code.

Docstrings show examples as `>>>` lines, which Markdown would read as quotations.
"""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?:^>>> .*\n(?:.+\n?)*\n?)+\Z", re.MULTILINE)


class ExamplesAsCode(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Fence the examples at the end of a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(fenced, obj.docstring.value)


def fenced(found: re.Match[str]) -> str:
    return f"```pycon\n{found[0].rstrip()}\n```"
