"""A model behind HTTP: a page to try it, and an endpoint for programs."""

from .answers import Options
from .app import Limits, make_app

__all__ = ["Limits", "Options", "make_app"]
