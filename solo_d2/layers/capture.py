"""Whether operations run now, or are recorded to run later."""

from __future__ import annotations

import torch


def capturing() -> bool:
    """Whether a graph is being recorded: by `torch.jit.trace`, `torch.compile` or `torch.export`.

    Functions of this package then take the plain path: operations that every graph format knows,
    on whole tensors, without a decision that depends on the values of the example input.
    """
    return torch.jit.is_tracing() or torch.compiler.is_compiling()
