"""Identities in films: which instance of a frame is which object of the frames before."""

from .tracker import Tracker

__all__ = ["Tracker"]
