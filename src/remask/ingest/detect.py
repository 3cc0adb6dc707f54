"""Which reader a value gets: the table of all formats, asked in order.

What is special comes before what is general: a chat has messages, but so has a span, and nearly
everything could be a row of a table. Knows nothing of files.
"""

from typing import Any

from remask.ingest import agents, chat, openai_files, table
from remask.ingest.inspect_log import ARCHIVE, INSPECT
from remask.ingest.langfuse import LANGFUSE
from remask.ingest.langsmith import LANGSMITH
from remask.ingest.mlflow import MLFLOW
from remask.ingest.opik import OPIK
from remask.ingest.otlp import OTLP, SPAN
from remask.ingest.promptfoo import PROMPTFOO
from remask.ingest.record import Container, Format

FORMATS: tuple[Format, ...] = (
    OTLP,
    MLFLOW,
    SPAN,
    *agents.FORMATS,
    INSPECT,
    PROMPTFOO,
    OPIK,
    LANGSMITH,
    LANGFUSE,
    *openai_files.FORMATS,
    *chat.FORMATS,
    *table.FORMATS,
)
CONTAINERS: tuple[Container, ...] = (ARCHIVE,)
MAX_SHAPES = 1000


class Detector:
    """Finds the format of each value, quickly where it looks like one before."""

    def __init__(self, formats: tuple[Format, ...] = FORMATS) -> None:
        self._formats = formats
        self._seen: dict[tuple[str, ...], Format] = {}  # by the keys of the object

    def __call__(self, value: Any) -> Format | None:
        """The format of `value`, or None where no reader knows it."""
        if type(value) is not dict:
            return self._search(value)
        shape = tuple(value)
        known = self._seen.get(shape)
        if known is not None and known.sniff(value):
            return known
        found = self._search(value)
        if found is not None and len(self._seen) < MAX_SHAPES:
            self._seen[shape] = found
        return found

    def _search(self, value: Any) -> Format | None:
        return next((format for format in self._formats if format.sniff(value)), None)
