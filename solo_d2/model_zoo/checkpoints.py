"""Published checkpoints of SOLO models: where they are, what fits them, what their authors report.

Every AP and time of `CHECKPOINTS` is the authors' (mask AP on COCO val2017; milliseconds per image
on a V100, as their tables say); none was measured with this package. `SHIPPED` are this package's
own small models, which come with it.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from detectron2.config import CfgNode

from ..checkpoint.info import MSRA, TORCHVISION, InputConvention

PREFIX = "solo://"
"""Of the name of a checkpoint in ``MODEL.WEIGHTS``."""

PROJECTS = {
    "mmdet": "mmdetection",
    "adelaidet": "AdelaiDet",
    "wxinlong": "WXinlong/SOLO",
    "solo_d2": "this package",
}
"""Publishers, by the first part of a checkpoint's name.

In the order in which a config takes its default: mmdetection's files come under Apache-2.0 and
with a hash, the others' for non-commercial use only and without one.
"""

_SOURCES = {"mmdet": "mmdet", "adelaidet": "adelaidet", "wxinlong": "solo", "solo_d2": "solo_d2"}


@dataclass(frozen=True)
class PublishedCheckpoint:
    """One published file.

    Attributes:
        name: "PROJECT/MODEL", e.g. "adelaidet/SOLOv2_R50_3x".
        config: the config of `solo_d2.model_zoo` that fits, without its input convention.
        url: of the file itself; "" for a model that comes with this package.
        ap: mask AP in percent, published for COCO val2017, or of the model card (docs/models.md).
        milliseconds: published time for an image on a V100; None where there is none.
        convention: the input that the model was trained with.

    Example:
        >>> checkpoint = list_models()[0]
        >>> checkpoint.project, checkpoint.ap
        ('mmdet', 33.1)
    """

    name: str
    config: str
    url: str
    ap: float
    milliseconds: float | None
    convention: InputConvention

    @property
    def project(self) -> str:
        """Who published it: a key of `PROJECTS`."""
        return self.name.partition("/")[0]

    @property
    def shipped(self) -> bool:
        """Whether it comes with this package."""
        return not self.url

    @property
    def source(self) -> str:
        """What `solo_d2.checkpoint.convert_state_dict` calls the project."""
        return _SOURCES[self.project]

    @property
    def weights(self) -> str:
        """Value of ``MODEL.WEIGHTS``."""
        return PREFIX + self.name

    @property
    def file(self) -> str:
        """Name of the published file."""
        return self.url.rpartition("/")[2]

    @property
    def sha256_prefix(self) -> str:
        """First 8 hexadecimal digits of the file's SHA-256, or "" where none is published."""
        found = re.search(r"-([0-9a-f]{8})\.pth$", self.file)
        return found[1] if found else ""

    @property
    def backbone(self) -> str:
        """For people, e.g. "R-101-DCN"."""
        if self.shipped:
            return "EfficientNet-Lite0"
        found = re.search(r"(DCN_)?([RX])_(\d+)(_DCN)?", self.config)
        assert found, self.config
        return f"{found[2]}-{found[3]}" + ("-DCN" if found[1] or found[4] else "")


def _adelaidet(model: str, config: str, ap: float, milliseconds: float) -> PublishedCheckpoint:
    url = f"https://huggingface.co/ZjuCv/AdelaiDet/resolve/main/{model}.pth"
    return PublishedCheckpoint(
        f"adelaidet/{model}", _config(config), url, ap, milliseconds, convention=MSRA
    )


def _wxinlong(model: str, config: str, ap: float, milliseconds: float) -> PublishedCheckpoint:
    url = f"https://huggingface.co/xinlongwang/SOLO/resolve/main/{model}.pth"
    return PublishedCheckpoint(
        f"wxinlong/{model}", _config(config), url, ap, milliseconds, convention=TORCHVISION
    )


def _mmdet(
    model: str, suffix: str, config: str, ap: float, milliseconds: float | None = None
) -> PublishedCheckpoint:
    folder = "solov2" if model.startswith("solov2") else "solo"
    base = "https://download.openmmlab.com/mmdetection/v2.0"
    url = f"{base}/{folder}/{model}/{model}_{suffix}.pth"
    return PublishedCheckpoint(
        f"mmdet/{model}", _config(config), url, ap, milliseconds, convention=TORCHVISION
    )


def _config(stem: str) -> str:
    return f"COCO-InstanceSegmentation/{stem}.yaml"


def _shipped(model: str, ap: float) -> PublishedCheckpoint:
    convention = InputConvention("RGB", (127.0, 127.0, 127.0), (128.0, 128.0, 128.0), None)
    return PublishedCheckpoint(
        f"solo_d2/{model}", f"Models/{model}.yaml", "", ap, None, convention=convention
    )


# fmt: off
CHECKPOINTS: tuple[PublishedCheckpoint, ...] = (
    _mmdet("solo_r50_fpn_1x_coco", "20210821_035055-2290a6b8", "solo_R_50_FPN_1x", 33.1, 95.1),
    _mmdet("solo_r50_fpn_3x_coco", "20210901_012353-11d224d7", "solo_R_50_FPN_3x", 35.9, 94.2),
    _mmdet("decoupled_solo_r50_fpn_1x_coco", "20210820_233348-6337c589",
           "decoupled_solo_R_50_FPN_1x", 33.9, 116.4),
    _mmdet("decoupled_solo_r50_fpn_3x_coco", "20210821_042504-7b3301ec",
           "decoupled_solo_R_50_FPN_3x", 36.7, 117.2),
    _mmdet("decoupled_solo_light_r50_fpn_3x_coco", "20210906_142703-e70e226f",
           "decoupled_solo_light_R_50_FPN_3x", 32.9, 35.0),
    _mmdet("solov2_r50_fpn_1x_coco", "20220512_125858-a357fa23", "solov2_R_50_FPN_1x", 34.8),
    _mmdet("solov2_r50_fpn_3x_coco", "20220512_125856-fed092d4", "solov2_R_50_FPN_3x", 37.5),
    _mmdet("solov2_r101_fpn_3x_coco", "20220511_095119-c559a076", "solov2_R_101_FPN_3x", 39.1),
    _mmdet("solov2_r101_dcn_fpn_3x_coco", "20220513_214734-16c966cb",
           "solov2_R_101_DCN_FPN_3x", 41.2),
    _mmdet("solov2_x101_dcn_fpn_3x_coco", "20220513_214337-aef41095",
           "solov2_X_101_DCN_FPN_3x", 42.4),
    _mmdet("solov2_light_r18_fpn_3x_coco", "20220511_083717-75fa355b",
           "solov2_light_448_R_18_FPN_3x", 29.7),
    _mmdet("solov2_light_r34_fpn_3x_coco", "20220511_091839-e51659d3",
           "solov2_light_448_R_34_FPN_3x", 31.9),
    _mmdet("solov2_light_r50_fpn_3x_coco", "20220512_165256-c93a6074",
           "solov2_light_448_R_50_FPN_3x", 33.7),
    _adelaidet("SOLOv2_R50_3x", "solov2_R_50_FPN_3x", 37.6, 47),
    _adelaidet("SOLOv2_R101_3x", "solov2_R_101_FPN_3x", 39.0, 61),
    _wxinlong("SOLO_R50_1x", "solo_R_50_FPN_1x", 32.9, 77),
    _wxinlong("SOLO_R50_3x", "solo_R_50_FPN_3x", 35.8, 77),
    _wxinlong("SOLO_R101_3x", "solo_R_101_FPN_3x", 37.1, 86),
    _wxinlong("DECOUPLED_SOLO_R50_1x", "decoupled_solo_R_50_FPN_1x", 33.9, 85),
    _wxinlong("DECOUPLED_SOLO_R50_3x", "decoupled_solo_R_50_FPN_3x", 36.4, 85),
    _wxinlong("DECOUPLED_SOLO_R101_3x", "decoupled_solo_R_101_FPN_3x", 37.9, 92),
    _wxinlong("DECOUPLED_SOLO_LIGHT_R50_3x", "decoupled_solo_light_R_50_FPN_3x", 33.0, 29),
    _wxinlong("DECOUPLED_SOLO_LIGHT_DCN_R50_3x", "decoupled_solo_light_DCN_R_50_FPN_3x", 35.0, 36),
    _wxinlong("SOLOv2_R50_1x", "solov2_R_50_FPN_1x", 34.8, 54),
    _wxinlong("SOLOv2_R50_3x", "solov2_R_50_FPN_3x", 37.5, 54),
    _wxinlong("SOLOv2_R101_3x", "solov2_R_101_FPN_3x", 39.1, 66),
    _wxinlong("SOLOv2_R101_DCN_3x", "solov2_R_101_DCN_FPN_3x", 41.4, 97),
    _wxinlong("SOLOv2_X101_DCN_3x", "solov2_X_101_DCN_FPN_3x", 42.4, 169),
    _wxinlong("SOLOv2_LIGHT_448_R18_3x", "solov2_light_448_R_18_FPN_3x", 29.6, 19),
    _wxinlong("SOLOv2_LIGHT_448_R34_3x", "solov2_light_448_R_34_FPN_3x", 32.0, 20),
    _wxinlong("SOLOv2_LIGHT_448_R50_3x", "solov2_light_448_R_50_FPN_3x", 33.7, 24),
    _wxinlong("SOLOv2_LIGHT_512_DCN_R50_3x", "solov2_light_512_DCN_R_50_FPN_3x", 36.4, 34),
)
# fmt: on

SHIPPED = (
    _shipped("objects_lite0", 52.9),
    _shipped("stamps_lite0", 35.6),
    _shipped("mattes_lite0", 47.9),
)
"""Models whose weights come with this package; docs/models.md has their cards."""

_ALL = CHECKPOINTS + SHIPPED
_BY_NAME = {checkpoint.name: checkpoint for checkpoint in _ALL}


def list_models() -> tuple[PublishedCheckpoint, ...]:
    """List all published checkpoints that this package reads, grouped by project, and its own.

    Example:
        >>> list_models()[0].name
        'mmdet/solo_r50_fpn_1x_coco'
    """
    return _ALL


def is_checkpoint_name(name: str) -> bool:
    """Return whether a name means a published checkpoint (known or not), and not a config."""
    return name.startswith(PREFIX) or name.partition("/")[0] in PROJECTS


def find_checkpoint(name: str) -> PublishedCheckpoint:
    """Look a checkpoint up.

    Args:
        name: "PROJECT/MODEL", also with ``solo://`` before it.

    Raises:
        ValueError: There is no such checkpoint.
    """
    bare = name.removeprefix(PREFIX)
    if bare in _BY_NAME:
        return _BY_NAME[bare]
    lower = {known.lower(): known for known in _BY_NAME}
    close = difflib.get_close_matches(bare.lower(), lower, n=3, cutoff=0.4)
    similar = ", ".join(lower[match] for match in close) or ", ".join(_BY_NAME)
    raise ValueError(
        f"{name!r} is not a published checkpoint that solo_d2 knows; similar: {similar}. "
        "`python -m solo_d2.model_zoo` lists all."
    )


def default_checkpoint(config: str) -> PublishedCheckpoint:
    """Return the checkpoint that a config gets when it is asked for trained weights.

    Args:
        config: Name of the config, relative to ``configs/``.

    Raises:
        ValueError: No weights are published for this config.
    """
    for checkpoint in _ALL:
        if checkpoint.config == config:
            return checkpoint
    known = ", ".join(dict.fromkeys(checkpoint.config for checkpoint in _ALL))
    raise ValueError(
        f"no weights are published for {config!r}; set MODEL.WEIGHTS to a checkpoint, or use one "
        f"of the configs with published weights: {known}"
    )


def has_published_weights(config: str) -> bool:
    """Return whether weights are published for a config, named as for `default_checkpoint`."""
    return any(checkpoint.config == config for checkpoint in _ALL)


def use_checkpoint(cfg: CfgNode, checkpoint: PublishedCheckpoint) -> None:
    """Put a checkpoint, and the input that it was trained with, into a config."""
    cfg.MODEL.WEIGHTS = checkpoint.weights
    if checkpoint.shipped:
        cfg.MODEL.TIMM.WEIGHTS = ""  # it holds the backbone, too
    cfg.merge_from_list([x for pair in checkpoint.convention.settings.items() for x in pair])


def markdown_table() -> str:
    """Return the table of MODEL_ZOO.md."""
    columns = ("name", "config", "source", "backbone", "AP", "ms", "input")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in CHECKPOINTS:
        default = " (default)" if default_checkpoint(row.config) is row else ""
        stem = row.config.rpartition("/")[2].removesuffix(".yaml")
        milliseconds = "–" if row.milliseconds is None else f"{row.milliseconds:g}"
        convention = "MSRA" if row.convention == MSRA else "torchvision"
        lines.append(
            f"| `{row.name}`{default} | [{stem}](configs/{row.config}) | {PROJECTS[row.project]} "
            f"| {row.backbone} | {row.ap} | {milliseconds} | {convention} |"
        )
    return "\n".join(lines)
