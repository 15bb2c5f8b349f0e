"""Load programs of torch, in a form that can do nothing but compute on tensors.

A .pt2 or .torchscript file is code: as torch reads them, pickles in a .pt2 are executed and texts
in it evaluated, and either may call whatever torch has, such as what writes files. So the files are
taken apart here. Of a .pt2, every text is held against a rule before torch sees it, and pickles are
left out. TorchScript is compiled by torch without running it (which `_DUNDER` ensures), and the
compiled graph is looked through. Both may use `OPERATORS` alone. torch gets a copy of what was
checked, never the file.
"""

from __future__ import annotations

import ast
import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

Program = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]

OPERATORS = frozenset(
    """
    abs adaptive_avg_pool2d add add_ addmm alias amax amin __and__ arange argmax argsort
    _assert_tensor_metadata avg_pool2d baddbmm batch_norm bitwise_and bitwise_not bitwise_or bmm
    Bool cat ceil chunk clamp clamp_max clamp_min clone constant_pad_nd contiguous conv2d
    _convolution convolution copy_ cumsum detach detach_ diagonal div div_ dropout elu empty_like
    eq exp expand expand_as fill_ flatten flip Float floor floor_divide full full_like gather ge
    gelu grid_sampler group_norm gt hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh
    hardtanh_ index index_select instance_norm Int layer_norm le leaky_relu leaky_relu_
    lift_fresh_copy linear log log_softmax logical_and logical_not logical_or lt masked_fill
    matmul max max_pool2d maximum mean min minimum mish mm movedim mT mul mul_ narrow ne neg
    new_full new_ones new_zeros ones ones_like __or__ pad permute pixel_shuffle pow prod
    promote_types reciprocal relu relu6 relu_ remainder repeat repeat_interleave reshape roll
    round rsqrt rsub scalar_tensor ScalarImplicit scaled_dot_product_attention scatter select
    sigmoid sigmoid_ sign silu silu_ size slice _softmax softmax softplus sort split
    split_with_sizes sqrt square squeeze stack std sub sub_ sum sym_numel sym_size t tanh to topk
    transpose tril triu true_divide trunc type_as unbind unflatten unsqueeze upsample_bicubic2d
    upsample_bilinear2d upsample_nearest2d var view view_as where zeros zeros_like
    """.split()
)
"""Names of `torch.ops.aten` that a program may use: functions of tensors and numbers."""

_OTHERS = frozenset(
    {
        *("torchvision.deform_conv2d", "torchvision.roi_align", "higher_order.wrap_with_autocast"),
        *(f"_operator.{x}" for x in ("add", "eq", "floordiv", "ge", "getitem", "gt", "le", "lt")),
        *(f"_operator.{x}" for x in ("mod", "mul", "ne", "neg", "pow", "sub", "truediv")),
        *(f"torch.sym_{x}" for x in ("float", "int", "ite", "max", "min", "not")),
        *(f"prim.{x}" for x in ("Constant", "GetAttr", "If", "ListConstruct", "ListUnpack")),
        *(f"prim.{x}" for x in ("NumToTensor", "TupleConstruct", "TupleUnpack", "device", "dtype")),
    }
)
_BEYOND = 2**28
"""Bytes of unpacked members that a file may have beyond its own size."""

_PT2_MEMBER = re.compile(
    r"data/(weights/weight_\d+|weights/model_weights_config\.json|constants/tensor_\d+"
    r"|constants/model_constants_config\.json|sample_inputs/model\.pt)|models/model\.json"
    r"|archive_format|archive_version|byteorder|version|\.data/\w+|extra/\w+"
)
_TORCHSCRIPT_MEMBER = re.compile(
    r"code/.+\.py(\.debug_pkl)?|(data|constants|traced_inputs)(\.pkl|/\d+)"
    r"|byteorder|version|\.data/\w+|extra/\w+"
)
_DROPPED = ("extra/", "traced_inputs")
_NAME = re.compile(r"[\w.+*/() -]*")
_TARGET = re.compile(r"torch\.ops\.(\w+\.\w+?)(\.[A-Za-z]\w*)?")
_FUNCTIONS = {
    "Symbol",
    "Integer",
    "Float",
    "Add",
    "Mul",
    "Pow",
    "Max",
    "Min",
    "Mod",
    "FloorDiv",
} | {
    *("CeilDiv", "CleanDiv", "PythonMod", "Rational"),
}
_SYNTAX = (ast.Expression, ast.Name, ast.keyword, ast.Load, ast.UnaryOp, ast.USub)
_CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict"}
_DUNDER = re.compile(rb"__[A-Za-z]\w*?__")
_PLAIN_DUNDERS = {
    *(b"__torch__", b"__parameters__", b"__buffers__", b"__annotations__", b"__and__", b"__or__"),
}


def load_pt2(path: Path) -> Program:
    """Load what `torch.export.save` wrote.

    Raises:
        ValueError: The file holds something else than a program of `OPERATORS`.
        Exception: It is damaged; whatever torch raises.
    """
    members = _members(path, _PT2_MEMBER)
    members["data/sample_inputs/model.pt"] = b""  # a pickle
    for name in members:
        if name.endswith(".json"):
            members[name] = json.dumps(_checked(json.loads(members[name]))).encode()
    program = torch.export.load(_packed(members)).module()
    return lambda images: program(images)


def load_torchscript(path: Path) -> Program:
    """Load what `torch.jit.save` wrote.

    Raises:
        ValueError: The file holds something else than a program of `OPERATORS`.
        Exception: It is damaged; whatever torch raises.
    """
    members = _members(path, _TORCHSCRIPT_MEMBER)
    for name in list(members):
        if name.endswith(".debug_pkl"):
            del members[name]
        elif name.endswith((".py", ".pkl")):
            special = set(_DUNDER.findall(members[name])) - _PLAIN_DUNDERS
            if special or b"torch.classes" in members[name]:
                names = ", ".join(sorted(x.decode() for x in special)) or "torch.classes"
                raise ValueError(f"{name} uses {names}, which no exported model does")
    with warnings.catch_warnings():  # torch would like people to use .pt2
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.jit.load(_packed(members), map_location="cpu").eval()
    for kind in _kinds(program.inlined_graph):
        _check_operator(kind.replace("::", "."), kind)
    return lambda images: program.forward(images)


def _members(path: Path, known: re.Pattern[str]) -> dict[str, bytes]:
    """Members of an archive by their path below its only folder."""
    members: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > path.stat().st_size + _BEYOND:
            raise ValueError("its members are many times as large unpacked")
        for entry in entries:
            name = entry.filename.partition("/")[2]
            if not known.fullmatch(name) or name in members:
                raise ValueError(f"has a member {entry.filename!r}, which no exported model has")
            if not name.startswith(_DROPPED):
                members[name] = archive.read(entry)
    return members


def _packed(members: dict[str, bytes]) -> io.BytesIO:
    """An archive of these members alone."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"program/{name}", content)
    file.seek(0)
    return file


def _kinds(graph: Any) -> Iterator[str]:
    """What the nodes of a compiled graph do, also in its branches."""
    for node in graph.nodes():
        yield node.kind()
        for block in node.blocks():
            yield from _kinds(block)


def _check_operator(name: str, text: str) -> None:
    space, _, operator = name.partition(".")
    if name not in _OTHERS and not (space == "aten" and operator in OPERATORS):
        raise ValueError(f"uses {text[:80]!r}, which is none of the operators that a file may use")


def _checked(value: Any, key: str = "") -> Any:
    """A JSON value whose texts keep their rules; without what only debuggers need."""
    if key in ("metadata", "guards_code"):
        return type(value)()
    if isinstance(value, dict):
        for name in value:
            _check_text(name, "key")
        return {name: _checked(value[name], name) for name in value}
    if isinstance(value, list):
        return [_checked(item, key) for item in value]
    if isinstance(value, str):
        _check_text(value, key)
    elif key == "use_pickle" and value:
        raise ValueError("has pickled tensors, which no exported model has")
    return value


def _check_text(text: str, key: str) -> None:
    if key in ("target", "as_operator"):
        found = _TARGET.fullmatch(text)
        _check_operator(found[1] if found else text, text)
    elif not _RULES.get(key, _NAME.fullmatch)(text):
        raise ValueError(f"has {text[:80]!r} as {key}, which no exported model has")


def _is_expression(text: str) -> bool:
    """Return whether a text is arithmetic, such as ``Mul(Integer(32), Symbol('s0'))``."""
    try:
        return all(map(_is_arithmetic, ast.walk(ast.parse(text, mode="eval"))))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    if isinstance(node, ast.Constant):
        value = node.value
        return isinstance(value, bool | int | float) or bool(re.fullmatch(r"\w+", str(value)))
    return isinstance(node, _SYNTAX)


def _is_structure(text: str) -> bool:
    """Return whether a text describes nested tuples, lists and dicts."""
    try:
        version, spec = json.loads(text)
    except (ValueError, RecursionError):
        return False
    todo = [spec]
    while todo:
        part = todo.pop()
        if part.get("type") not in _CONTAINERS or part.get("context") not in (None, "null", "[]"):
            return False
        todo += part["children_spec"]
    return version == 1


_RULES: dict[str, Callable[[str], Any]] = {
    "expr_str": _is_expression,
    "in_spec": _is_structure,
    "out_spec": _is_structure,
    "path_name": re.compile(r"(weight|tensor)_\d+").fullmatch,
}
