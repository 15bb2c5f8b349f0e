"""Weights of other projects: recognised, renamed, checked."""
