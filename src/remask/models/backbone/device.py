"""Where a model is computed and in which numbers, if nobody says so.

Knows what PyTorch tells of this machine. Knows no models.
"""

import torch

from remask.errors import BackendError


def choose_device(name: str | None = None) -> torch.device:
    """The device called `name`, or the quickest there is. Raises BackendError."""
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).partition("\n")[0]
        raise BackendError(f"the device {name!r} cannot be used here ({first})") from error
    return device


def choose_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the device multiplies it, else float32.

    A CPU without instructions for bf16 (AVX-512 BF16, AMX) emulates it: on one with AVX2 alone a
    matrix product took seven times as long as in float32.
    """
    if device.type != "cpu":
        return torch.bfloat16
    # Private names: the public ones are younger than the oldest PyTorch that we allow.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    return torch.bfloat16 if native else torch.float32
