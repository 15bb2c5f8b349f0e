"""Recognise, rename and check weights of other projects."""
