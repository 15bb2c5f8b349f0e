"""The version, which the build and every part of the package read here."""

__version__ = "0.1.0"
