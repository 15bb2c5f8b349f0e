"""Configs and models by name."""

from .model_zoo import get, get_config, get_config_file

__all__ = ["get", "get_config", "get_config_file"]
