"""Helpers of the commands and the demo: video, colours, results, command lines."""
