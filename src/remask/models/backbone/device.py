"""Choose the device and the dtype of a model."""

import torch

from remask.errors import BackendError


def choose_device(name: str | None = None) -> torch.device:
    """Return the device `name`, by default CUDA, else MPS, else the CPU. Raises BackendError."""
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
    """Return bf16 if the device has instructions for it, else float32.

    A CPU without them (AVX-512 BF16, AMX) emulates bf16: with AVX2 only, a matrix product took
    seven times as long as in float32.
    """
    if device.type != "cpu":
        return torch.bfloat16
    # The public names of these checks are newer than the oldest supported PyTorch.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    return torch.bfloat16 if native else torch.float32
