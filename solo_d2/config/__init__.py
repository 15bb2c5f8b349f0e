"""Configuration: the keys of this package, reading, and validation."""

from .device import resolve_device
from .keys import HEAD_KEYS, add_solo_config
from .merging import merge_file, merge_overrides, split_overrides
from .validation import validate_config

__all__ = [
    "HEAD_KEYS",
    "add_solo_config",
    "merge_file",
    "merge_overrides",
    "resolve_device",
    "split_overrides",
    "validate_config",
]
