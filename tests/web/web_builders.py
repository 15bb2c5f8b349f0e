"""A file as `solo_d2.export` writes it, made at once: an instance for each channel."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from solo_d2.export.info import LAYOUT, METADATA_KEY, ExportInfo
from solo_d2.testing import tiny_config

OUTPUTS = ("scores", "labels", "masks", "num_candidates")
_SHAPES = {
    "image": [1, 3, None, None],
    "scores": [1, 4],
    "labels": [1, 4],
    "masks": [1, 4, None, None],
    "num_candidates": [1],
}
_CONSTANTS = {
    "white": np.float32(255),
    "base": np.array([[0.8, 0.5, 0.2]], np.float32),
    "tenth": np.float32(0.1),
    "empty": np.zeros((1, 1), np.float32),
    "labels": np.array([[0, 1, 2, 0]]),
    "num_candidates": np.array([3]),
    "sides": np.array([2, 3]),
    "first": np.array([0]),
}
_NODES = [
    ("AveragePool", ["image"], "small", {"kernel_shape": [4, 4], "strides": [4, 4]}),
    ("Div", ["small", "white"], "soft", {}),
    ("Gather", ["soft", "first"], "one", {"axis": 1}),
    ("Concat", ["soft", "one"], "masks", {"axis": 1}),
    ("ReduceMean", ["soft", "sides"], "mean", {"keepdims": 0}),
    ("Mul", ["mean", "tenth"], "more", {}),
    ("Add", ["base", "more"], "found", {}),
    ("Concat", ["found", "empty"], "scores", {"axis": 1}),  # the last slot is empty
]


def write_model(path, *keys, **changes):
    """Write the model: scores 0.8, 0.5 and 0.2, each and a tenth of the channel's mean.

    Args:
        path: of the file.
        keys: and values of the config.
        changes: of the metadata.
    """
    sizes = ("INPUT.MIN_SIZE_TEST", 96, "INPUT.MAX_SIZE_TEST", 160)
    values = {
        "layout": LAYOUT, "solo_d2": "1", "kind": "full", "precision": "f32", "outputs": OUTPUTS,
        "config": tiny_config(*sizes, *keys).dump(),
        "class_names": ("cup", "fork", "spoon"), "stuff_names": (), "category_ids": (3, 5, 9),
        "stuff_category_ids": (), "input_format": "BGR", "resize_filter": "pillow",
        "min_size": 96, "max_size": 160, "pixel_mean": (1.0, 2.0, 3.0), "divisor": 32,
        "size": None, "batch": 1, "mask_thresh": 0.5, "max_candidates": 200, "max_instances": 4,
        "weights_sha256": "", **changes,
    }  # fmt: skip
    kinds = {"labels": onnx.TensorProto.INT64, "num_candidates": onnx.TensorProto.INT64}
    ends = [
        helper.make_tensor_value_info(name, kinds.get(name, onnx.TensorProto.FLOAT), shape)
        for name, shape in _SHAPES.items()
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, given, [name], **more) for kind, given, name, more in _NODES],
        "channels",
        ends[:1],
        ends[1:],
        [numpy_helper.from_array(np.asarray(x), name) for name, x in _CONSTANTS.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, ir_version=9, opset_imports=opset)
    helper.set_model_props(model, {METADATA_KEY: ExportInfo(**values).to_json()})
    onnx.save(model, path)
    return path
