"""A page that finds instances in the browser, without a server behind it."""

from .bundle import bundle

__all__ = ["bundle"]
