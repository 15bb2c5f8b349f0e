"""Write the page with a model and the runtime into a folder, for any server of files."""

from __future__ import annotations

import gzip
import json
from os import PathLike
from pathlib import Path
from typing import Any

from ..export import open_exported
from ..export.info import ExportInfo
from ..export.reading import read_config
from ..io.atomic import atomic_write
from ..io.paths import printable
from .runtime import VERSION, read_runtime

PAGE = Path(__file__).with_name("page")
"""What every page has: HTML, style, programs, an example."""

_OF_THE_MODEL = (
    *("class_names", "category_ids", "input_format", "resize_filter", "min_size", "max_size"),
    *("pixel_mean", "divisor", "size", "batch", "mask_thresh", "max_candidates"),
)


def bundle(
    model: str | PathLike[str],
    output: str | PathLike[str],
    *,
    name: str | None = None,
    runtime: str | PathLike[str] | None = None,
) -> dict[str, int]:
    """Write a folder that any static server can serve; the page needs nothing else.

    The model and the runtime lie there compressed, and the page unpacks them: most small servers
    do not compress. Files of the same names are replaced, others stay.

    Args:
        model: An `.onnx` file of `solo_d2.export`, of instances.
        output: The folder, which is made.
        name: Of the model, shown on the page; by default that of the file.
        runtime: The tarball of `solo_d2.web.runtime.URL`, where it cannot be fetched.

    Returns:
        Bytes of each file by name.

    Raises:
        ValueError: The model cannot be used, or `runtime` is another file.
        OSError: The runtime cannot be fetched, or the folder not be written.

    Example:
        >>> sizes = bundle("mine.onnx", "web/", name="My model")         # doctest: +SKIP
    """
    path, folder = Path(model), Path(output)
    info = _read_info(path)
    contents = {file.name: file.read_bytes() for file in PAGE.iterdir()}
    contents |= read_runtime(runtime) | {"model.bin": path.read_bytes()}
    for packed in ("runtime.bin", "model.bin"):
        contents[packed] = gzip.compress(contents[packed], 9, mtime=0)
    sizes = {packed: len(contents[packed]) for packed in ("runtime.bin", "model.bin")}
    refines = read_config(path, info).MODEL.SOLO.REFINE_MASKS_TEST
    metadata = {**_metadata(info, name or path.stem, sizes), "refine_masks": refines}
    contents["model.json"] = json.dumps(metadata).encode()
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in contents.items():
        with atomic_write(folder / file, sync=False) as target:
            target.write(data)
    return {file: len(data) for file, data in contents.items()}


def _read_info(path: Path) -> ExportInfo:
    if path.suffix.lower() != ".onnx":
        raise ValueError(f"{printable(path)}: expected an .onnx file; solo-d2 export writes one")
    info = open_exported(path)[1]
    if info.kind != "full" or "mattes" in info.outputs:
        raise ValueError(
            f"{printable(path)}: is no model of instances; export a SOLO with kind full"
        )
    return info


def _metadata(info: ExportInfo, name: str, sizes: dict[str, int]) -> dict[str, Any]:
    """What the page needs to know."""
    values = {key: getattr(info, key) for key in _OF_THE_MODEL}
    return {**values, "name": name, "runtime": f"ONNX Runtime {VERSION}", "files": sizes}
