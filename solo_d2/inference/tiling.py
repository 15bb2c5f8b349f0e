"""Models that look at an image more than once: at several scales, or through windows."""

from __future__ import annotations

from detectron2.config import CfgNode
from torch import nn

from ..export import ExportedModel
from ..layers.images import resized_shape
from ..modeling.test_time_augmentation import SOLOWithTTA
from ..modeling.tiles import NetworkShape, TiledModel, uses_tiles


def set_tiles(cfg: CfgNode, tiles: int | None) -> None:
    """Turn windows on or off in a config.

    Args:
        cfg: changed in place.
        tiles: side of a window in pixels; True for the size in `cfg`, None changes nothing.

    Raises:
        ValueError: a size that is not positive, or a config of Detectron2's keys alone.
    """
    if tiles is None:
        return
    if "TILES" not in cfg.TEST:
        raise ValueError("tiles needs the keys that solo_d2.add_solo_config(cfg) adds to a config.")
    cfg.TEST.TILES.ENABLED = tiles is not False
    if not isinstance(tiles, bool):
        if tiles < 1:
            raise ValueError(f"tiles must be the side of a window in pixels or True, got {tiles}.")
        cfg.TEST.TILES.SIZE = tiles


def wrap(cfg: CfgNode, model: nn.Module) -> tuple[nn.Module, NetworkShape]:
    """Give a model the scales or windows of a config.

    Args:
        cfg: has `TEST.AUG`, `TEST.TILES` and `INPUT`.
        model: sees an image once, in evaluation mode.

    Returns:
        The model, and the size (height, width) at which it takes an image of (height, width).

    Raises:
        ValueError: it cannot look more than once.
    """
    if cfg.TEST.AUG.ENABLED:
        return SOLOWithTTA(cfg, model), _unchanged
    short, longest = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST

    def plain(height: int, width: int) -> tuple[int, int]:
        if isinstance(model, ExportedModel) and model.info.size is not None:
            return model.network_shape(height, width)  # one size, whatever the config says
        return resized_shape((height, width), short, longest)

    return (TiledModel(cfg, model, plain), _unchanged) if uses_tiles(cfg) else (model, plain)


def _unchanged(height: int, width: int) -> tuple[int, int]:
    """Of models that resize an image themselves."""
    return height, width
