"""Whether operations run now, or are recorded to run later."""

from __future__ import annotations

import torch


def capturing() -> bool:
    """Return whether a graph is recorded: by `torch.jit.trace`, `torch.export` or `torch.compile`.

    Functions then use operations that every graph format knows instead of reading bytes as other
    types, and check nothing.

    Example:
        >>> import torch
        >>> capturing()
        False
    """
    return exporting() or torch.compiler.is_compiling()


@torch.compiler.assume_constant_result  # torch before 2.14 compiles `is_exporting` to True
def exporting() -> bool:
    """Return whether `torch.jit.trace` or `torch.export` records a graph to replace the code.

    What depends on the values of the example input must then become part of the graph, or be done
    without: chunks, windows, early ends. `torch.compile` runs such steps itself, every time.

    Example:
        >>> exporting()
        False
    """
    # torch before 2.7 does not tell export from compilation.
    is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)
    # Exported by `torch.jit` without being in its `__all__`.
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing or is_exporting()
