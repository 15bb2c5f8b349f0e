"""Objects whose pickles would make a folder; a test that finds it has run foreign code."""

from __future__ import annotations

import os


class Payload:
    """Unpickled by `pickle.load`, it makes the folder `marker`."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)
