"""How the room's templates are read: escaped, and an unknown name is an error."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """A fresh one, for filters of one's own."""
    return Environment(
        loader=PackageLoader("remask.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
