"""Generators of datasets: scenes composed of shapes, stamps or cut-outs."""
