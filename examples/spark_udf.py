r"""A pandas UDF: instances of a column of images in Spark, bad images in a column of their own.

    from spark_udf import instances_udf

    images = spark.read.format("binaryFile").load("s3a://bucket/photographs")
    found = images.select("path", instances_udf("solo_d2/objects_lite0")("content").alias("found"))
    found.select("path", "found.*").write.parquet("s3a://bucket/instances")

It needs pyspark, pandas and pyarrow beside this package, on all executors. The column has two
fields: `results`, a JSON list of COCO results without image ids, and `error`, why an image could
not be used; one of them is null. Spark does tasks again whose executor was lost, and keeps the
results of one try.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from solo_d2 import SOLOPredictor
from solo_d2.inference.failures import describe, raise_if_hopeless
from solo_d2.io.image import decode_image
from solo_d2.io.results import EncodedInstances

Row = tuple[str | None, str | None]


@functools.cache
def predictor_of(model: str, threshold: float) -> SOLOPredictor:
    """Return the predictor of this Python worker, which Spark uses for many tasks."""
    return SOLOPredictor(model, confidence_threshold=threshold)


def predict_contents(predictor: Any, contents: Iterable[bytes]) -> Iterator[Row]:
    """Yield (results, None) or (None, error) for the bytes of every image."""
    for content in contents:
        try:
            image = decode_image(bytes(content))
            found = EncodedInstances.of(predictor(image)["instances"])
            entries = found.entries(None, class_names=predictor.metadata.get("thing_classes"))
            plain = [{k: v for k, v in x.items() if k != "image_id"} for x in entries]
            yield json.dumps(plain), None
        except Exception as error:  # of one image; a broken GPU ends the task
            raise_if_hopeless(error)
            yield None, describe(error)


def predict_batches(model: str, threshold: float) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """Return a function from batches of a column to batches of two columns."""

    def run(batches: Iterator[Any]) -> Iterator[Any]:
        import pandas

        predictor = predictor_of(model, threshold)
        for contents in batches:
            rows = list(predict_contents(predictor, contents))
            yield pandas.DataFrame(rows, columns=["results", "error"], dtype=object)

    return run


def instances_udf(model: str, threshold: float = 0.3) -> Any:
    """Return the UDF for a model: a name, a config with weights beside it, or an exported file."""
    import pandas
    from pyspark.sql.functions import pandas_udf

    run = predict_batches(model, threshold)
    # Spark reads from them what kind of function it is.
    run.__annotations__ = {
        "batches": Iterator[pandas.Series], "return": Iterator[pandas.DataFrame],
    }  # fmt: skip
    return pandas_udf(run, "results string, error string")
