"""Data: readers, mappers, data sets and their checks; nothing is registered at import."""
