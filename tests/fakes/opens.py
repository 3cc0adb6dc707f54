"""Which files a process opens, and how often."""

import os
import sys
from collections import Counter

import safetensors
import safetensors.torch


def count_opens() -> Counter[str]:
    """Every file opened from now on, counted by its path. Call it in a process of its own, before
    remask is imported: the interpreter's hook cannot be taken away again."""
    opened: Counter[str] = Counter()
    real = safetensors.safe_open  # opens its file outside of Python, unheard by the hook

    def counted(file: str | os.PathLike[str], *args: object, **kwargs: object) -> object:
        opened[os.fspath(file)] += 1
        return real(file, *args, **kwargs)

    def heard(event: str, args: tuple[object, ...]) -> None:
        if event == "open" and isinstance(args[0], str):
            opened[args[0]] += 1

    safetensors.safe_open = safetensors.torch.safe_open = counted
    sys.addaudithook(heard)
    return opened
