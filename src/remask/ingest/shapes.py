"""Parts of an untyped JSON value, or nothing where they have another shape. Knows no format."""

from typing import Any

from remask.ingest.dialects import decoded


def rows(value: object) -> list[dict[str, Any]]:
    """The objects in a list, which may be JSON inside a text."""
    value = decoded(value)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def fields(value: object) -> dict[str, Any]:
    """An object, which may be JSON inside a text."""
    value = decoded(value)
    return value if isinstance(value, dict) else {}
