"""Old place of these functions, for one release."""

import warnings

from .checkpoint import load_weights
from .config import resolve_device
from .model_zoo import load_config

__all__ = ["load_config", "load_weights", "resolve_device"]

warnings.warn(
    "solo_d2.loading is gone: load_config is in solo_d2.model_zoo, load_weights in "
    "solo_d2.checkpoint, resolve_device in solo_d2.config",
    DeprecationWarning,
    stacklevel=2,
)
