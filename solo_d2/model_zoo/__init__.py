"""Configs, models and published weights by name.

Importing makes ``solo://PROJECT/MODEL`` known to Detectron2 as a place of weights, and
``hf://OWNER/NAME``, a model on the Hugging Face Hub, to this package.
"""

from .checkpoints import PublishedCheckpoint, list_models
from .hub import push_folder, register_hub
from .model_zoo import get, get_config, get_config_file, load_config
from .weights import local_weights, register_published_weights

__all__ = [
    "PublishedCheckpoint",
    "get",
    "get_config",
    "get_config_file",
    "list_models",
    "load_config",
    "local_weights",
    "push_folder",
]

register_published_weights()
register_hub()
