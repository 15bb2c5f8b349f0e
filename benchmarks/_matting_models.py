"""Models whose mattes are compared: of this package, of Detectron2, and of its PointRend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode, get_cfg
from detectron2.projects.point_rend import add_pointrend_config

from solo_d2 import add_solo_config, load_config
from solo_d2.config.merging import merge_file

KINDS = {"SoftSOLO": ("mattes",), "SOLO": ("masks", "soft masks")}
"""Meta-architecture of this package -> kinds of mattes; all others have masks."""


def load_any_config(path: str, overrides: Sequence[str] = ()) -> CfgNode:
    """Read a config of this package, of Detectron2, or of its project PointRend.

    Raises:
        ValueError: It cannot be used.
    """
    if not Path(path).is_file():
        return load_config(path, overrides)
    cfg = get_cfg()
    add_solo_config(cfg)
    add_pointrend_config(cfg)
    merge_file(cfg, path)
    return load_config(cfg, overrides)
