"""Everything after the model, for images and video: predictor, runner, drawing, effects."""

from .predictor import SOLOPredictor
from .pretrained import ModelCard
from .runner import InferenceRun, show_in_window

__all__ = ["InferenceRun", "ModelCard", "SOLOPredictor", "show_in_window"]
