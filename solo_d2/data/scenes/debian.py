"""Fetch images from Debian packages into a cache folder.

Only the requested files are unpacked. Packages come from ``apt-get download``, which checks
their hashes, or from files the user has; both need no administrator rights.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["StampsUnavailableError", "deb_package_name", "fetch_package"]

logger = logging.getLogger(__name__)


class StampsUnavailableError(RuntimeError):
    """The images are not available on this machine; the message says what to do."""


REMEDY = (
    "Fetch the package on a machine with apt (`apt-get download {package}`) and pass the file "
    "with --deb, or use the shapes dataset, which needs no images."
)


def _run(command: list[str], package: str, cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace")
    except FileNotFoundError as error:
        raise StampsUnavailableError(
            f"{command[0]} is needed for the package {package} and is not installed here. "
            + REMEDY.format(package=package)
        ) from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        reason = (lines or done.stderr.splitlines() or ["no message"])[-1]
        raise StampsUnavailableError(
            f"`{' '.join(command[:1] + command[-2:])}` failed: {reason} "
            + REMEDY.format(package=package)
        )


def _download(package: str, folder: Path) -> Path:
    """Download a package into an empty folder and return the file."""
    try:
        _run(["apt-get", "download", package], package, folder)
    except StampsUnavailableError:
        # Fresh containers have no package lists, and making the system's needs root: make our own.
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        private = ["-o", f"Dir::State={folder / 'state'}", "-o", f"Dir::Cache={folder / 'cache'}"]
        _run(["apt-get", *private, "update"], package, folder)
        _run(["apt-get", *private, "download", package], package, folder)
    files = list(folder.glob("*.deb"))
    if len(files) != 1:
        raise StampsUnavailableError(
            f"`apt-get download {package}` left {len(files)} files, expected 1. "
            + REMEDY.format(package=package)
        )
    return files[0]


def deb_package_name(deb: Path) -> str:
    """Return the name of the package in a file.

    Raises:
        ValueError: If the file is missing or is no Debian package.
        StampsUnavailableError: If dpkg-deb is not installed.
    """
    if not deb.is_file():
        raise ValueError(f"--deb {deb}: no such file")
    try:
        done = subprocess.run(
            ["dpkg-deb", "--field", str(deb), "Package"], capture_output=True, text=True
        )
    except FileNotFoundError as error:
        raise StampsUnavailableError(
            f"dpkg-deb is needed to unpack {deb} and is not installed here. "
            "Pass an unpacked folder with --extracted instead."
        ) from error
    if done.returncode:
        raise ValueError(f"--deb {deb}: not a Debian package, or damaged; download it again")
    return done.stdout.strip()


def _extract(deb: Path, wanted: Iterable[str], folder: Path) -> None:
    """Unpack the files `wanted` (paths inside the package) below `folder`."""
    names = set(wanted)
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    damaged = f"{deb} is damaged or incomplete; remove it and download it again"
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise StampsUnavailableError(f"dpkg-deb is needed to unpack {deb}") from error
    assert process.stdout is not None
    try:
        with process, tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                # Only names of our own table are written, so no path can lead out of `folder`.
                source = archive.extractfile(member) if name in names and member.isfile() else None
                if source is not None:
                    target = folder / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(source.read())
            while process.stdout.read(1 << 20):  # the end marker is not the end of the pipe
                pass
    except (tarfile.TarError, EOFError) as error:
        raise StampsUnavailableError(damaged) from error
    if process.returncode:
        raise StampsUnavailableError(damaged)


def fetch_package(
    package: str, wanted: Sequence[str], cache: Path, deb: Path | None = None
) -> Path:
    """Fetch files of a Debian package into a cache.

    A second call with the same arguments does nothing. The folder gets its name only when it
    is complete. Files that this version of the package does not contain are skipped.

    Args:
        package: name of the Debian package.
        wanted: paths inside the package, such as "usr/share/…".
        cache: folder for everything fetched.
        deb: the package file, or None to download it.

    Returns:
        The folder below which the paths `wanted` lie.

    Raises:
        StampsUnavailableError: If the package cannot be downloaded or unpacked.
    """
    digest = hashlib.sha256("\n".join(sorted(wanted)).encode()).hexdigest()[:8]
    target = cache / f"{package}-{digest}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{package}-", dir=cache)).resolve()
    try:
        if deb is None:
            logger.info("fetching the Debian package %s", package)
            (scratch / "download").mkdir()
            deb = _download(package, scratch / "download")
        (scratch / "files").mkdir()
        _extract(deb, wanted, scratch / "files")
        os.replace(scratch / "files", target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target
