"""Datasets: reading, checking, registering, loading, and generated scenes.

`DATA_SOURCES` is open: an entry of your own is usable as ``--data KIND:DIR`` (docs/extending.md).
"""

from .sources import DATA_SOURCES, JSON_FORMATS, DataSource

__all__ = ["DATA_SOURCES", "JSON_FORMATS", "DataSource"]
