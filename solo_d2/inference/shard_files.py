"""Results of a shard as a file: COCO's JSON, or a table of Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

__all__ = ["FORMATS", "check_format"]

Results = list[dict[str, Any]]


class _Format(NamedTuple):
    suffix: str
    write: Callable[[BinaryIO, Results], None]


def _write_coco(file: BinaryIO, results: Results) -> None:
    lines = ",\n".join(json.dumps(entry, allow_nan=False) for entry in results)
    file.write(f"[{lines}]\n".encode())


def _write_parquet(file: BinaryIO, results: Results) -> None:
    """A row for every instance; the mask is two columns, height and width and its RLE."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    kinds = {
        "image_id": pa.int64(),
        "file_name": pa.string(),
        "category_id": pa.int64(),
        "category_name": pa.string(),
        "score": pa.float64(),
        "bbox": pa.list_(pa.float64(), 4),
    }
    arrays = {key: pa.array([x.get(key) for x in results], kind) for key, kind in kinds.items()}
    masks = [x["segmentation"] for x in results]
    arrays["size"] = pa.array([x["size"] for x in masks], pa.list_(pa.int32(), 2))
    arrays["counts"] = pa.array([x["counts"] for x in masks], pa.string())
    parquet.write_table(pa.table(arrays), file, compression="zstd")


FORMATS = {"coco": _Format(".json", _write_coco), "parquet": _Format(".parquet", _write_parquet)}
"""How results of a shard are written, by name."""


def check_format(kind: str) -> None:
    """Check that results can be written so.

    Raises:
        ValueError: a package is missing.
    """
    if kind != "parquet":
        return
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "--shard-format parquet needs pyarrow; install it: pip install 'solo_d2[parquet]'"
        ) from error
