"""Datasets: stamps, shapes, and any set in COCO format. Nothing is registered at import."""
