"""Names of devices."""

from __future__ import annotations

import torch


def resolve_device(name: str) -> torch.device:
    """Turn "auto" (CUDA where there is one, else the CPU) or a torch name into a device.

    Raises:
        ValueError: torch knows no such device, this machine has none, or it holds no values.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'Unknown device {name!r}; use "auto", "cpu" or "cuda[:N]".') from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"Device {name!r} asked for, {torch.cuda.device_count()} CUDA devices found. "
            'Use "auto" or "cpu".'
        )
    if device.type not in ("cpu", "cuda"):
        try:
            torch.zeros(1, device=device).item()
        except Exception as error:  # every backend has its own way to say that it is not there
            raise ValueError(
                f'Device {name!r} cannot compute here; use "auto", "cpu" or "cuda[:N]".'
            ) from error
    return device
