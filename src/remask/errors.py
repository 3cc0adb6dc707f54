"""Every exception that remask raises on purpose.

    RemaskError
    ├─ ConfigError          the user can mend it: exit code 2
    │  └─ DataError         … in a file: path, line, value
    ├─ BackendError         a model or an extra is missing or broken: exit code 2
    ├─ TargetError          one attempt at a target call failed: never a score
    │  ├─ TargetBusy        … and may succeed if tried again (429, 5xx, timeout)
    │  └─ TargetRefused     … and no further call can succeed (401, 403, 404): ends the run
    ├─ TargetUnreliable     too many rows without a score to rank prompts: exit code 3
    ├─ NumericsError        a model produced NaN or no finite logit
    ├─ BudgetSpent          the next call would pass a limit: the normal end of a search
    └─ RunBusy              another process holds the run directory: exit code 4

Messages are one sentence that carries the value and says what to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Which extra of remask brings a package that the core does without.
EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "tokenizers", "safetensors", "gguf"), "local"),
    "openai": "openai",
    "inspect_ai": "inspect",
    "yaml": "promptfoo",
}


class RemaskError(Exception):
    """Base of all errors raised on purpose."""

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
    """A model, its weights or an optional dependency is missing or broken."""

    exit_code = 2


class TargetError(RemaskError):
    """One attempt at a target call failed; the row stays without a score."""

    exit_code = 3


class TargetBusy(TargetError):
    """The attempt failed, and the same call may succeed later."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after  # seconds


class TargetRefused(TargetError):
    """The endpoint refuses every call (key, model or permission is wrong)."""


class TargetUnreliable(TargetError):
    """More rows failed than ranking prompts can tolerate."""


class NumericsError(RemaskError):
    """A model produced NaN, or a row of logits without a finite entry."""


class BudgetSpent(RemaskError):
    """The next chunk of calls would pass a limit."""

    exit_code = 3


class RunBusy(RemaskError):
    """Another process works on this run directory."""

    exit_code = 4


@contextmanager
def name_missing_extra() -> Iterator[None]:
    """Where an optional package cannot be imported, raise a BackendError that names its extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise BackendError(
            f"this needs the package {package}, which is not installed; "
            f"run: pip install 'remask[{EXTRAS[package]}]'"
        ) from None
