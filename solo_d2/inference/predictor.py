"""From a config (or its name) and weights to the instances of images, in one call."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import nn

from ..checkpoint import load_weights
from ..config import resolve_device, validate_config
from ..export import ExportedModel, is_exported, load_exported
from ..io.image_input import ImageLike, to_bgr
from ..layers.images import resize_image
from ..model_zoo.folder import pretrained_model
from ..model_zoo.hub import push_folder
from ..model_zoo.model_zoo import load_config
from ..modeling import SOLO, cuda_graphs
from .metadata import known_metadata, own_metadata
from .prediction import Prediction
from .pretrained import ModelCard, save_folder
from .tiling import set_tiles, wrap
from .trained import load_trained

__all__ = ["SOLOPredictor"]


class SOLOPredictor:
    """Instances of images, as Detectron2's `DefaultPredictor`, also for lists of images.

    Adds to the model: the config by name, weights, the device, resizing by `MIN_SIZE_TEST`,
    `MAX_SIZE_TEST` and `RESIZE_FILTER` of `cfg.INPUT`, the channel order of its `FORMAT`, and
    a score threshold; with `cfg.TEST.AUG.ENABLED` the scales of `cfg.TEST.AUG` instead of the
    one of `cfg.INPUT`; with `cfg.TEST.TILES.ENABLED` through windows. The model is in eval mode
    and runs under `torch.inference_mode`.

    Args:
        cfg_or_name: A config node, the path of a YAML file or of a folder (of `save_pretrained` or
            of a training), "hf://OWNER/NAME" on the Hugging Face Hub, a name of
            `solo_d2.model_zoo`, or a file that `solo_d2.export` wrote, which brings along all
            that the model needs.
        weights: Checkpoint to load instead of `cfg.MODEL.WEIGHTS`; of a folder by default its
            model.safetensors, model_best.pth or model_final.pth.
        device: "auto" (CUDA where there is one, else the CPU) or a torch device name.
        confidence_threshold: Keeps instances with a score of at least this, in [0, 1]; None
            keeps what the model returns.
        class_names: Names of the classes, in the order of the labels; by default those that the
            weights bring along, else those of the first dataset of `cfg.DATASETS.TEST`.
        model: A ready model, used as it is: no weights are loaded.
        allow_partial: Load what fits of the weights, and log what is left random.
        stuff_names: Names of stuff, from "things" on, beside `class_names`.
        category_ids: The dataset's id of each of `class_names`; by default those that the weights
            bring along.
        stuff_category_ids: The dataset's id of each of `stuff_names`.
        image_format: Order of the channels of arrays, "BGR" as OpenCV has it, or "RGB".
        tiles: Look at images through windows of this many pixels (`cfg.TEST.TILES.SIZE`), see
            `TiledModel`; True for windows of the size in `cfg`, None for what `cfg` says. Masks are
            `EncodedMasks` then.
        kernels: Give instances ``pred_kernels``, float32 (K, D), by which a
            `solo_d2.tracking.Tracker` knows objects again. Only dynamic heads of PyTorch models
            predict some, and neither multi-scale testing nor windows keep them.
        compile: Replay recorded CUDA graphs, one for every input size, see `solo_d2.compile`;
            "fuse" for fused kernels as well, which take a minute for every size.

    Attributes:
        cfg: The config in use (a copy).
        model: The model, on `device`.
        device: The torch device.
        image_format: Order of the channels of arrays.
        max_value: `cfg.INPUT.MAX_VALUE`, see `read_image`.
        metadata: Of the dataset; `metadata.get("thing_classes")` has the class names or None.

    Raises:
        ValueError: The config, the weights, the device or the threshold cannot be used.

    Example:
        >>> import numpy as np
        >>> from solo_d2.testing import tiny_config
        >>> predictor = SOLOPredictor(tiny_config("INPUT.MIN_SIZE_TEST", 64))
        >>> predictor(np.zeros((50, 70, 3), np.uint8))["instances"].image_size
        (50, 70)
    """

    def __init__(
        self,
        cfg_or_name: CfgNode | str | PathLike[str],
        *,
        weights: str | PathLike[str] | None = None,
        device: str = "auto",
        confidence_threshold: float | None = None,
        class_names: Sequence[str] | None = None,
        model: nn.Module | None = None,
        allow_partial: bool = False,
        stuff_names: Sequence[str] | None = None,
        category_ids: Sequence[Any] | None = None,
        stuff_category_ids: Sequence[Any] | None = None,
        image_format: str = "BGR",
        tiles: int | None = None,
        compile: bool | Literal["fuse"] = False,
        kernels: bool = False,
    ) -> None:
        if confidence_threshold is not None and not 0.0 <= confidence_threshold <= 1.0:
            raise ValueError(f"confidence_threshold must be in [0, 1], got {confidence_threshold}.")
        self.cfg, weights, model = _find_model(cfg_or_name, weights, model)
        set_tiles(self.cfg, tiles)
        validate_config(self.cfg)
        if image_format not in ("BGR", "RGB"):
            raise ValueError(f'image_format must be "BGR" or "RGB", got {image_format!r}.')
        self.image_format = image_format
        self.device = _resolve_device(device, model)
        self.cfg.MODEL.DEVICE = str(self.device)
        if weights is not None:
            self.cfg.MODEL.WEIGHTS = fspath(weights)
        self.confidence_threshold = confidence_threshold
        ids = {"thing": category_ids, "stuff": stuff_category_ids}
        self.metadata = known_metadata(self.cfg, class_names, stuff_names, ids)
        if model is None:
            model = build_model(self.cfg)
            named = class_names is not None
            if named:  # the weights come to this order, or these are other words for their classes
                model.class_names = tuple(class_names or ())
                model.stuff_names = tuple(stuff_names or ())
            load_weights(model, self.cfg.MODEL.WEIGHTS, allow_partial=allow_partial, rename=named)
        self.metadata = own_metadata(model, self.metadata, named=class_names is not None)
        self._network = model.to(self.device).eval()
        if kernels and isinstance(model, SOLO):
            model.keep_kernels = True
        if compile:
            _compile(self._network, compile, augmented=self.cfg.TEST.AUG.ENABLED)
        self.model, self._network_shape = wrap(self.cfg, self._network)

    @classmethod
    def from_pretrained(
        cls, name: str | PathLike[str], *, revision: str | None = None, **options: Any
    ) -> SOLOPredictor:
        """Load a model by the name of a folder, of a repository on the Hub, or of the model zoo.

        Of a repository only its config and its safetensors weights are fetched: data, no code.

        Args:
            name: A folder of `save_pretrained` or of a training; "OWNER/NAME" on the Hugging Face
                Hub; or a checkpoint of `solo_d2.model_zoo`, such as "solo_d2/objects_lite0".
            revision: Branch, tag or commit on the Hub.
            **options: Of `SOLOPredictor`.

        Raises:
            ValueError: There is no such model, or it cannot be had or used.

        Example:
            >>> from solo_d2.testing import tiny_config
            >>> SOLOPredictor(tiny_config()).save_pretrained("cups")
            >>> SOLOPredictor.from_pretrained("cups", device="cpu").cfg.MODEL.SOLO.NUM_CLASSES
            3
        """
        return cls(pretrained_model(name, revision), **options)

    def save_pretrained(self, folder: str | PathLike[str], card: ModelCard | None = None) -> None:
        """Write a model folder: config.yaml, model.safetensors, and a card for people (README.md).

        Args:
            folder: A new or empty one, or a model folder, whose config and weights are replaced
                and whose card stays as it is.
            card: What the card says beside what the model knows of itself.

        Raises:
            ValueError: The model is of an exported file, the folder holds something else, or its
                card is another than `card` asks for.
            OSError: It cannot be written.
        """
        save_folder(folder, self._network, self.cfg, card or ModelCard())

    def push_to_hub(self, repository: str, card: ModelCard | None = None, **options: Any) -> str:
        """Push the model to the Hugging Face Hub, see `solo_d2.model_zoo.push_folder`.

        Args:
            repository: "OWNER/NAME"; a new one is private unless ``public=True``.
            card: See `save_pretrained`.
            **options: Of `push_folder`: public, revision, token, message.

        Returns:
            The URL of the commit.

        Raises:
            ValueError: See `save_pretrained`, or the Hub refuses or cannot be reached.
        """
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent, repository.rpartition("/")[2])
            self.save_pretrained(folder, card)
            return push_folder(folder, repository, **options)

    @property
    def max_value(self) -> float:
        """The value of images with more than 8 bits that becomes 255; 0 if unknown."""
        value: float = self.cfg.INPUT.get("MAX_VALUE", 0)
        return value

    @overload
    def __call__(self, images: ImageLike, image_format: str | None = None) -> Prediction: ...

    @overload
    def __call__(
        self, images: list[ImageLike], image_format: str | None = None
    ) -> list[Prediction]: ...

    @overload
    def __call__(
        self, images: Iterator[ImageLike], image_format: str | None = None
    ) -> Iterator[Prediction]: ...

    def __call__(
        self,
        images: ImageLike | list[ImageLike] | Iterator[ImageLike],
        image_format: str | None = None,
    ) -> Prediction | list[Prediction] | Iterator[Prediction]:
        """Predict one image, or several of any sizes.

        Images of a list that have the same size after resizing run as one batch, so that no image
        is padded for another one and the results are those of one call per image. A long list
        needs memory in proportion; an iterator, such as a generator, is predicted one by one.

        Args:
            images: A path, an image of Pillow, or an array: uint8 BGR, shape (H, W, 3), or another
                form that `to_bgr` takes; or a list or an iterator of these.
            image_format: Order of the channels of arrays, if not that of the predictor.

        Returns:
            The model's output for the image, `{"instances": Instances}` at (H, W) on the model's
            device, as a `Prediction`; or a list or an iterator of these in the order of `images`.

        Raises:
            ValueError: A file cannot be read, or an array has another type or shape, or is empty.
        """
        order = self.image_format if image_format is None else image_format
        if isinstance(images, Iterator):
            return (self(image, order) for image in images)
        if not isinstance(images, list | tuple):
            return self._predict([images], [""], order)[0]
        names = [f"Image {index} of the list" for index in range(len(images))]
        return self._predict(images, names, order)

    def _predict(
        self, images: Sequence[ImageLike], names: Sequence[str], order: str
    ) -> list[Prediction]:
        arrays = [
            to_bgr(image, *filter(None, [name]), image_format=order, max_value=self.max_value)
            for image, name in zip(images, names, strict=True)
        ]
        files = [fspath(image) if isinstance(image, str | PathLike) else None for image in images]
        return [
            Prediction(output, array, self.metadata, file)
            for output, array, file in zip(self._run(arrays), arrays, files, strict=True)
        ]

    def _run(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        shapes = [self._network_shape(*image.shape[:2]) for image in images]
        groups: dict[tuple[int, int], list[int]] = {}
        for index, shape in enumerate(shapes):
            groups.setdefault(shape, []).append(index)
        outputs: list[dict[str, Any]] = [{} for _ in images]
        for shape, members in groups.items():
            inputs = [self._to_input(images[index], shape) for index in members]
            with torch.inference_mode():
                for index, output in zip(members, self.model(inputs), strict=True):
                    outputs[index] = self._above_threshold(output)
        return outputs

    def _to_input(self, image: np.ndarray, shape: tuple[int, int]) -> dict[str, Any]:
        height, width = image.shape[:2]
        if self.cfg.INPUT.FORMAT == "RGB":
            image = image[:, :, ::-1]
        image = resize_image(image, shape, self.cfg.INPUT.get("RESIZE_FILTER", "pillow"))
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}

    def _above_threshold(self, output: dict[str, Any]) -> dict[str, Any]:
        if self.confidence_threshold is None:
            return output
        instances: Instances = output["instances"]
        return {**output, "instances": instances[instances.scores >= self.confidence_threshold]}


def _compile(model: nn.Module, way: object, *, augmented: bool) -> None:
    if way not in (True, "fuse"):
        raise ValueError(f'compile must be False, True or "fuse", got {way!r}.')
    if isinstance(model, ExportedModel):
        raise ValueError("compile=True is for PyTorch models; exported files are compiled already.")
    if augmented:
        raise ValueError("compile=True is for one scale; set TEST.AUG.ENABLED False.")
    cuda_graphs.compile(model, fuse=way == "fuse")


_Weights = str | PathLike[str] | None


def _find_model(
    cfg_or_name: CfgNode | str | PathLike[str], weights: _Weights, model: nn.Module | None
) -> tuple[CfgNode, _Weights, nn.Module | None]:
    """The config (a copy), and where the model comes from: from weights, or it is there."""
    if isinstance(cfg_or_name, CfgNode):
        cfg = cfg_or_name.clone()
        cfg.defrost()
        return cfg, weights, model
    if is_exported(cfg_or_name):
        if weights is not None or model is not None:
            raise ValueError(f"{fspath(cfg_or_name)} has its own weights; name no others.")
        exported = load_exported(cfg_or_name)
        return exported.cfg.clone(), None, exported
    if model is not None:
        return load_config(cfg_or_name), weights, model
    return *load_trained(cfg_or_name, weights=weights), None


def _resolve_device(device: str, model: nn.Module | None) -> torch.device:
    if not isinstance(model, ExportedModel):
        return resolve_device(device)
    if device not in ("auto", "cpu"):
        raise ValueError(f'exported files run on the device "cpu", got {device!r}.')
    return torch.device("cpu")
