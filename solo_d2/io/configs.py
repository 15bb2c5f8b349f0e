"""Find the YAML configs that come with this package."""

from __future__ import annotations

import os
from pathlib import Path

# In an installed package the configs lie in `model_zoo`, in a checkout at its top.
_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE / "model_zoo" / "configs", _PACKAGE.parent / "configs")


def config_folder() -> Path:
    """Find the folder of the configs.

    Raises:
        ValueError: They are not installed.
    """
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    if folder is None:
        raise ValueError(f"the configs of solo_d2 are not installed; looked in {_FOLDERS[0]}")
    return folder


def config_name(path: str | os.PathLike[str]) -> str | None:
    """Return the name of the config of this package that lies at a path; None for all others."""
    if not os.path.isfile(path):  # says no to names that no file can have
        return None
    file, folder = Path(path).resolve(), config_folder().resolve()
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else None
