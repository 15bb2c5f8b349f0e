"""solo_d2: the SOLO family of box-free instance segmentation for Detectron2.

Importing registers meta-architectures, heads and backbones, and has no other effect.
"""

from . import _moved, model_zoo
from .config import add_solo_config
from .inference.predictor import SOLOPredictor
from .modeling import SOLO, SOLO_HEAD_REGISTRY

__version__ = "0.1.0"
_moved.install()

__all__ = ["SOLO", "SOLO_HEAD_REGISTRY", "SOLOPredictor", "add_solo_config", "model_zoo"]
