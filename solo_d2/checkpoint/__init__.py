"""Reading, converting and saving weights."""

from .checkpointer import SOLOCheckpointer, load_weights
from .files import load_checkpoint, load_state_dict, save_checkpoint
from .fit import Require
from .foreign.convert import convert_state_dict
from .info import CheckpointInfo, InputConvention
from .places import read_info

__all__ = [
    "CheckpointInfo",
    "InputConvention",
    "Require",
    "SOLOCheckpointer",
    "convert_state_dict",
    "load_checkpoint",
    "load_state_dict",
    "load_weights",
    "read_info",
    "save_checkpoint",
]
