"""Write a model to a file of another runtime, once it is known to find the same there."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, get_cfg
from torch import Tensor, nn

from .._version import __version__
from ..io.growing import check_output
from ..io.paths import printable
from ..model_zoo import model_zoo
from ..modeling import SOLO
from ..modeling.fixed import decay_of
from .checking import check_drop, check_file
from .formats import Format, format_of
from .graph import FullGraph, RawGraph, example, exportable
from .info import KINDS, LAYOUT, ExportInfo
from .model import ExportedModel
from .packages import versions
from .parity import Parity, RawParity
from .quantize import DropLimit, quantize
from .reading import open_exported
from .writers import WRITERS, Dims, Recording, Save


@dataclass(frozen=True)
class ExportReport:
    """What `export_model` has done.

    Attributes:
        path: The file.
        files: All files that belong to it.
        format: Of the file.
        kind: "full" or "raw".
        precision: In which it runs.
        size_bytes: Of all files together.
        seconds: That the export took, with the check.
        parity: What the check has found, one entry for each image, or of kind "raw" for each
            batch; () without a check.
        accuracy: Of the model and of the file, as a `DropLimit` measures it; None without one.

    Example:
        >>> print(export_model(predictor, "model.onnx"))                 # doctest: +SKIP
    """

    path: Path
    files: tuple[Path, ...]
    format: str
    kind: str
    precision: str
    size_bytes: int
    seconds: float
    parity: tuple[Parity | RawParity, ...]
    accuracy: tuple[float, float] | None = None

    def __str__(self) -> str:
        """Describe it in a few lines."""
        lines = [
            f"{self.path}: {self.format}, {self.kind}, {self.precision}, "
            f"{self.size_bytes / 2**20:.1f} MiB, in {self.seconds:.0f} s"
        ]
        lines += [f"  {parity}" for parity in self.parity]
        if self.accuracy is not None:
            before, after = self.accuracy
            lines.append(f"  accuracy {before:.2f} of the model, {after:.2f} of the file")
        return "\n".join(lines)


def export_model(
    model_or_name: nn.Module | str | Any,
    path: str | PathLike[str],
    *,
    format: str | None = None,
    kind: str = "full",
    size: tuple[int, int] | None = None,
    batch: int | None = 1,
    max_candidates: int = 200,
    precision: str | None = None,
    check: bool = True,
    cfg: CfgNode | None = None,
    images: Sequence[Tensor] = (),
    onnx: str | PathLike[str] | None = None,
    calibration: Sequence[Tensor] = (),
    limit: DropLimit | None = None,
) -> ExportReport:
    """Export a model for another runtime.

    Args:
        model_or_name: A published checkpoint's or config's name, which means its published
            weights; a `SOLOPredictor`; or a `SOLO` together with `cfg`.
        path: The file to write: .onnx, .xml (and .bin), .pt2 or .torchscript.
        format: "onnx", "openvino", "pt2" or "torchscript"; by default what the suffix says.
        kind: "full": instances come out; "raw": the network alone.
        size: (height, width) of the input; by default every multiple of the model's divisor.
        batch: Images at once; None for any number.
        max_candidates: K, the (cell, class) pairs that are looked at, the best by category score.
            An image with more candidates may lose instances, and is reported when it is run.
        precision: "f32", or of OpenVINO also "bf16", "f16" and "int8".
        check: Compare the file's results with the model's, at sizes that the exporter has not
            seen; nothing is written if they differ.
        cfg: The config that the model was built from.
        images: For the check, (3, H, W) in the model's channel order and range 0 to 255, with
            sides that the divisor divides; by default generated ones.
        onnx: For OpenVINO: a file that was written of the same model with the same arguments, to
            convert instead of recording the model again, which takes most of the time.
        calibration: For int8: some dozens of images as of `images`, of the kind that the file will
            see; ranges of values follow from them.
        limit: For int8: how much accuracy may be lost. Layers that lose most stay in f32, which is
            tried out; nothing is written if it cannot be kept.

    Returns:
        What was written, and what the check has found.

    Raises:
        ValueError: An argument cannot be used, the format lacks something that the model has, a
            package is missing, the results differ, or more accuracy is lost than `limit` allows.
        OSError: The file cannot be written.

    Example:
        >>> report = export_model("mmdet/solov2_light_r18_fpn_3x_coco", "m.onnx")  # doctest: +SKIP
    """
    start = time.perf_counter()
    target = Path(path)
    chosen = format_of(target, format)
    precision = precision or chosen.precisions[0]
    _check_arguments(kind, size, batch, max_candidates)
    _check_precision(precision, kind, calibration, limit)
    check_output(target)
    model, cfg = _resolve(model_or_name, cfg)
    _check_model(model, kind, size, batch)
    chosen.check(model, precision)
    copy = exportable(model)
    graph = FullGraph(copy, max_candidates) if kind == "full" else RawGraph(copy)
    source = None if onnx is None else Path(onnx)
    plan = _Plan(chosen, kind, size, batch, max_candidates, precision, source)
    with torch.no_grad():
        recording = _record(graph.eval(), plan, copy.size_divisibility)
        info = _describe(copy, cfg, plan, recording.outputs)
        if source is not None:
            _check_source(source, info)
        if calibration:
            samples = [x.float()[None].repeat(batch or 1, 1, 1, 1) for x in calibration]
            model_of = partial(ExportedModel, target, info)
            whole = partial(quantize, calibration=samples, limit=limit, as_model=model_of)
            recording = recording._replace(quantize=whole)
        save = WRITERS[chosen.name](recording)
        draft = _Draft(save, target, info)
        files, parity, accuracy = draft.write(model, images if check else None, limit)
    return ExportReport(
        path=target,
        files=files,
        format=chosen.name,
        kind=kind,
        precision=precision,
        size_bytes=sum(file.stat().st_size for file in files),
        seconds=time.perf_counter() - start,
        parity=parity,
        accuracy=accuracy,
    )


@dataclass(frozen=True)
class _Plan:
    """Checked arguments."""

    format: Format
    kind: str
    size: tuple[int, int] | None
    batch: int | None
    max_candidates: int
    precision: str
    source: Path | None


class _Draft(NamedTuple):
    """A program, and where it will be once it is known to be right."""

    save: Save
    target: Path
    info: ExportInfo

    def write(
        self, model: SOLO, images: Sequence[Tensor] | None, limit: DropLimit | None
    ) -> tuple[tuple[Path, ...], tuple[Parity | RawParity, ...], tuple[float, float] | None]:
        """Write the files, unless they differ from the model; `images` None compares nothing."""
        target, info = self.target, self.info
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            draft = Path(folder, target.name)
            self.save(draft, info.to_json())
            parity: tuple[Parity | RawParity, ...] = ()
            if images is not None:
                parity = tuple(check_file(draft, model, info, images))
                self.save(draft, replace(info, parity=tuple(map(asdict, parity))).to_json())
            accuracy = None if limit is None else check_drop(draft, model, info, limit)
            return _move(Path(folder), target.parent), parity, accuracy


def _check_source(source: Path, info: ExportInfo) -> None:
    """Check that an ONNX file holds what is to be written."""
    found = open_exported(source)[1]
    same = replace(found, precision=info.precision, tools=info.tools, parity=info.parity)
    if source.suffix != ".onnx" or same != info:
        raise ValueError(
            f"{printable(source)} is no .onnx file of this model with these arguments; leave onnx "
            "out"
        )


def _check_arguments(
    kind: str, size: tuple[int, int] | None, batch: int | None, max_candidates: int
) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size must be (height, width) in pixels, got {size}")
    for name, value in (("batch", batch), ("max_candidates", max_candidates)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _check_precision(
    precision: str, kind: str, calibration: Sequence[Tensor], limit: DropLimit | None
) -> None:
    if (precision == "int8") != bool(calibration):
        raise ValueError("precision int8 needs calibration images, and no other precision does")
    if limit is not None and (precision != "int8" or kind != "full"):
        raise ValueError('a limit of the drop is for precision int8 and kind "full"')


def _check_model(model: SOLO, kind: str, size: tuple[int, int] | None, batch: int | None) -> None:
    divisor = model.size_divisibility
    if size is not None and any(side % divisor for side in size):
        raise ValueError(f"size must be divisible by {divisor} in both directions, got {size}")
    if kind == "raw":
        return
    if decay_of(model.settings.nms) is None:
        raise ValueError(
            'only MODEL.SOLO.NMS_TYPE "matrix" and "fast" can be exported: others take one mask '
            'after the other; set one of these, or export with kind "raw"'
        )
    if batch is None and getattr(model.head, "kernel_size", 1) > 1:
        raise ValueError(
            "with MODEL.SOLO.KERNEL_SIZE above 1 the number of images must be fixed: give batch"
        )


def _resolve(model_or_name: Any, cfg: CfgNode | None) -> tuple[SOLO, CfgNode]:
    """The model, and its config."""
    model = model_or_name
    if isinstance(model_or_name, str):
        cfg = model_zoo.get_config(model_or_name, trained=True)
        model = model_zoo.get(model_or_name, trained=True, device="cpu")
    elif not isinstance(model_or_name, nn.Module):  # a SOLOPredictor
        model = getattr(model_or_name, "model", None)
        cfg = getattr(model_or_name, "cfg", None)
    if cfg is not None and cfg.TEST.AUG.ENABLED:
        raise ValueError("multi-scale testing cannot be exported: set TEST.AUG.ENABLED False")
    if not isinstance(model, SOLO):
        raise ValueError(
            "export_model expects a name, a SOLOPredictor or a SOLO, got "
            f"{type(model_or_name).__name__} with a {type(model).__name__}"
        )
    if cfg is None:
        raise ValueError("a model is exported together with its config: add cfg=...")
    return model, cfg


def _record(graph: FullGraph | RawGraph, plan: _Plan, divisor: int) -> Recording:
    """Say what is to be recorded, and with which input."""
    # An exporter takes a batch of 1 for the constant 1.
    image = example(plan.size or (4 * divisor, 6 * divisor), plan.batch or 2)
    dims: Dims = {}
    if plan.size is None or plan.batch is None:
        sides: dict[int, Any] = {}
        if plan.batch is None:
            sides[0] = torch.export.Dim("n", min=1, max=64)
        if plan.size is None:
            sides[2] = divisor * torch.export.Dim("h", min=1, max=256)
            sides[3] = divisor * torch.export.Dim("w", min=1, max=256)
        dims = {"image": sides}
    outputs = graph.outputs
    if plan.kind == "raw":
        count = len(graph(image))
        outputs = (*outputs, *(f"mask_input_{i}" for i in range(count - len(outputs))))
    return Recording(graph, image, dims, outputs, plan.precision, plan.source)


def _describe(model: SOLO, cfg: CfgNode, plan: _Plan, outputs: tuple[str, ...]) -> ExportInfo:
    cfg = cfg.clone()
    cfg.defrost()
    # Nothing of this machine.
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR, cfg.MODEL.DEVICE = "", get_cfg().OUTPUT_DIR, "cpu"
    return ExportInfo(
        layout=LAYOUT,
        solo_d2=__version__,
        kind=plan.kind,
        precision=plan.precision,
        outputs=outputs,
        config=cfg.dump(),
        class_names=tuple(model.class_names),
        stuff_names=tuple(model.stuff_names),
        category_ids=tuple(model.category_ids),
        stuff_category_ids=tuple(model.stuff_category_ids),
        input_format=cfg.INPUT.FORMAT,
        resize_filter=cfg.INPUT.RESIZE_FILTER,
        min_size=cfg.INPUT.MIN_SIZE_TEST,
        max_size=cfg.INPUT.MAX_SIZE_TEST,
        pixel_mean=tuple(model.pixel_mean.flatten().tolist()),
        divisor=model.size_divisibility,
        size=plan.size,
        batch=plan.batch,
        mask_thresh=model.settings.mask_thresh,
        max_candidates=plan.max_candidates,
        max_instances=min(plan.max_candidates, model.settings.max_instances),
        weights_sha256=_hash(model),
        tools={"torch": torch.__version__, **versions(plan.format.packages)},
    )


def _hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _move(source: Path, target: Path) -> tuple[Path, ...]:
    """Give the files of a folder their names in another one; the one that others belong to last."""
    files = sorted(source.iterdir())  # .bin before .xml
    for file in files:
        os.replace(file, target / file.name)
    return tuple(target / file.name for file in files)
