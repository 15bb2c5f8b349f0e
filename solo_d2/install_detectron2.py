"""Install Detectron2 without a compiler, or leave the one that is there alone.

Detectron2 is not on PyPI under its own name. The sdist ``pb1-detectron2==0.6`` carries the Python
sources of the upstream tag v0.6, but neither its C++ sources nor fixes for a current Python stack.
This program takes that sdist (pinned by SHA-256), applies the fixes listed in
``_detectron2_fixes.py`` beside it, writes a pure wheel named ``detectron2``, and installs it with
pip. What needs compiled code (rotated boxes) stays unavailable; SOLO uses none of it.

::

    python -m solo_d2.install_detectron2

Only the standard library is used, so that any Python 3.10 with pip and torch can run it.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ._detectron2_fixes import FIXES, PROJECTS, REQUIREMENTS, Fix, InstallError

SDIST = "pb1-detectron2==0.6"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
VERSION = "0.6"
DIST_INFO = f"detectron2-{VERSION}.dist-info"
BUILD_ID_FILE = "solo_d2_build_id.txt"

# pip runs the sdist's setup.py for its metadata. That imports torch, only to describe extensions
# which are not built here, and lists an extra with a URL, which newer pip refuses (26.3 does, 23.2
# does not). With this stand-in for torch it needs no torch, and states name and version alone.
TORCH_STAND_IN = {
    "torch/__init__.py": """
import distutils.core
from . import utils
__version__ = "2.0"
class version:
    hip = None
class cuda:
    is_available = staticmethod(lambda: False)
real_setup = distutils.core.setup
distutils.core.setup = lambda **a: real_setup(name=a["name"], version=a["version"], py_modules=[])
""",
    "torch/utils/__init__.py": "from . import cpp_extension\n",
    "torch/utils/cpp_extension.py": """
CUDA_HOME = ROCM_HOME = BuildExtension = None
CppExtension = CUDAExtension = lambda *args, **kwargs: None
""",
}

PROBE = """
import json, os, sys
import detectron2, detectron2.engine, detectron2.evaluation, detectron2.model_zoo
print(json.dumps([detectron2.__version__, os.path.dirname(detectron2.__file__)]))
"""


def build_id(fixes: Sequence[Fix] = FIXES) -> str:
    """Return a digest (hex) of everything that shapes the wheel: sdist, fixes, requirements."""
    facts = [SDIST_SHA256, *REQUIREMENTS, *(repr(fix) for fix in fixes)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def check_sha256(sdist: Path, expected: str) -> None:
    """Raise InstallError unless the file `sdist` exists and has the SHA-256 `expected` (hex)."""
    if not sdist.is_file():
        raise InstallError(f"no such file: {sdist}")
    found = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if found != expected:
        raise InstallError(
            f"{sdist} is not the pinned {SDIST}: SHA-256 {found}, expected {expected}"
        )


def read_sdist(sdist: Path) -> dict[str, bytes]:
    """Return the regular files of a .tar.gz sdist by their path below its top folder.

    Raises:
        InstallError: the archive cannot be read.
    """
    files = {}
    try:
        with tarfile.open(sdist, "r:gz") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                stream = archive.extractfile(member)
                assert stream is not None
                files[member.name.partition("/")[2]] = stream.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InstallError(f"{sdist} is not a readable .tar.gz archive: {error}") from error
    return files


def apply_fixes(files: dict[str, bytes], fixes: Sequence[Fix] = FIXES) -> dict[str, bytes]:
    """Return a copy of `files` (path -> content) with every fix applied in order.

    Raises:
        InstallError: a fix's file is missing, or its text occurs another number of times than
            the fix states (also when it was applied before).
    """
    fixed = dict(files)
    for fix in fixes:
        if fix.file not in fixed:
            raise InstallError(f"fix for {fix.file} ({fix.reason}): the file is missing")
        text = fixed[fix.file].decode("utf-8")
        found = text.count(fix.old)
        if found != fix.times:
            raise InstallError(
                f"fix for {fix.file} ({fix.reason}): {fix.old.strip()!r} occurs {found} times, "
                f"expected {fix.times}"
            )
        fixed[fix.file] = text.replace(fix.old, fix.new).encode("utf-8")
    return fixed


def select_files(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files that belong into the wheel by their path below site-packages.

    These are the Python sources of the package and of three projects, and the model-zoo configs.
    The sdist's top-level ``tools`` is left out: it would become an importable package.
    """
    chosen = {}
    for path, content in files.items():
        for source, target in {"detectron2/": "detectron2/", **PROJECTS}.items():
            is_config = path.startswith("detectron2/model_zoo/configs/") and path.endswith(".yaml")
            if path.startswith(source) and (path.endswith(".py") or is_config):
                chosen[target + path[len(source) :]] = content
    return chosen


def wheel_metadata(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the dist-info files, except RECORD, by their path below site-packages."""
    metadata = [
        "Metadata-Version: 2.1",
        "Name: detectron2",
        f"Version: {VERSION}",
        "Summary: Detectron2 v0.6, pure Python, with fixes for current PyTorch and NumPy",
        "Home-page: https://github.com/facebookresearch/detectron2",
        "Author: FAIR",
        "License: Apache-2.0",
        "Requires-Python: >=3.10",
        *(f"Requires-Dist: {requirement}" for requirement in REQUIREMENTS),
    ]
    wheel = ["Wheel-Version: 1.0", "Generator: solo_d2", "Root-Is-Purelib: true"]
    texts = {
        "METADATA": "\n".join(metadata) + "\n",
        "WHEEL": "\n".join([*wheel, "Tag: py3-none-any"]) + "\n",
        "top_level.txt": "detectron2\n",
        BUILD_ID_FILE: build_id() + "\n",
    }
    chosen = {f"{DIST_INFO}/{name}": text.encode() for name, text in texts.items()}
    if "LICENSE" in files:
        chosen[f"{DIST_INFO}/LICENSE"] = files["LICENSE"]
    return chosen


def build_wheel(files: dict[str, bytes], folder: Path) -> Path:
    """Write a pure wheel of the (fixed) sdist `files` into `folder` and return its path.

    Raises:
        InstallError: the files hold no detectron2 package.
    """
    content = select_files(files)
    if "detectron2/__init__.py" not in content:
        raise InstallError("the sdist holds no detectron2 package")
    content.update(wheel_metadata(files))
    record = []
    wheel = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(content):
            digest = base64.urlsafe_b64encode(hashlib.sha256(content[path]).digest())
            record.append(f"{path},sha256={digest.decode().rstrip('=')},{len(content[path])}")
            archive.writestr(path, content[path])
        record.append(f"{DIST_INFO}/RECORD,,")
        archive.writestr(f"{DIST_INFO}/RECORD", "\n".join(record) + "\n")
    return wheel


def probe() -> tuple[str, str] | None:
    """Return version and folder of the Detectron2 that this interpreter imports, None if none.

    Raises:
        InstallError: there is one, it is not our own outdated build, and it cannot be imported.
    """
    # From another folder: a checkout in the current one is not an installation.
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", PROBE]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        version, location = json.loads(result.stdout.splitlines()[-1])
        return version, location
    last_line = (result.stderr.strip().splitlines() or ["no message"])[-1]
    if last_line == "ModuleNotFoundError: No module named 'detectron2'" or installed_build_id():
        return None
    raise InstallError(
        f"a Detectron2 is installed but cannot be used ({last_line}); repair it, "
        "or replace it with --force"
    )


def installed_build_id() -> str | None:
    """Return the build id of an installed wheel that this program made, None for any other."""
    try:
        distribution = importlib.metadata.distribution("detectron2")
    except importlib.metadata.PackageNotFoundError:
        return None
    text = distribution.read_text(BUILD_ID_FILE)
    return text.strip() if text else None


def run_pip(*arguments: str, path: Sequence[Path] = ()) -> None:
    """Run this interpreter's pip with `path` in front of PYTHONPATH; its output is shown.

    Raises:
        InstallError: pip failed.
    """
    environment = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1")
    if path:
        folders = [*map(str, path), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    result = subprocess.run([sys.executable, "-m", "pip", *arguments], env=environment, check=False)
    if result.returncode != 0:
        raise InstallError(f"pip {arguments[0]} failed with exit code {result.returncode}")


def download_sdist(folder: Path) -> Path:
    """Fetch the pinned sdist into `folder` with pip, which checks the hash before it runs setup.py.

    Raises:
        InstallError: pip failed, or left no archive.
    """
    stand_in = folder / "stand_in"
    for name, text in TORCH_STAND_IN.items():
        (stand_in / name).parent.mkdir(parents=True, exist_ok=True)
        (stand_in / name).write_text(text)
    # Build isolation would hide the stand-in, so setuptools comes from here where it is missing.
    needed = [name for name in ("setuptools", "wheel") if importlib.util.find_spec(name) is None]
    if needed:
        run_pip("install", "--quiet", "--target", str(stand_in), *needed)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{SDIST} --hash=sha256:{SDIST_SHA256}\n")
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    target = ["--dest", str(folder), "-r", str(requirements)]
    run_pip("download", "--quiet", *options, *target, path=[stand_in])
    found = sorted(folder.glob("*.tar.gz"))
    if not found:
        raise InstallError(f"pip downloaded no archive of {SDIST}")
    return found[0]


def write_constraints(folder: Path) -> Path:
    """Write a constraints file that holds torch, torchvision and NumPy at what is installed."""
    lines = []
    for name in ("torch", "torchvision", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            lines.append(f"{name}=={importlib.metadata.version(name)}")
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(lines) + "\n")
    return constraints


def install(sdist: Path | None) -> tuple[str, str]:
    """Fetch (or take `sdist`), fix, build and install; return version and folder.

    Raises:
        InstallError: any step failed.
    """
    for module in ("pip", "torch", "torchvision"):
        if importlib.util.find_spec(module) is None:
            hint = "ensurepip" if module == "pip" else "pip install torch torchvision"
            raise InstallError(
                f'{module} is missing for {sys.executable}; first run "{sys.executable} -m {hint}"'
            )
    with tempfile.TemporaryDirectory(prefix="detectron2-") as name:
        folder = Path(name)
        print(f"1/4 source: {sdist or f'downloading {SDIST}'}", flush=True)
        sdist = sdist or download_sdist(folder)
        check_sha256(sdist, SDIST_SHA256)
        print(f"2/4 applying {len(FIXES)} fixes", flush=True)
        files = apply_fixes(read_sdist(sdist))
        wheel = build_wheel(files, folder)
        print(f"3/4 installing {wheel.name} and what it needs", flush=True)
        constraints = str(write_constraints(folder))
        run_pip("install", "--quiet", "--constraint", constraints, str(wheel))
        # The first call takes the dependencies; this one replaces an older build of version 0.6.
        run_pip("install", "--quiet", "--force-reinstall", "--no-deps", str(wheel))
    print("4/4 importing it", flush=True)
    found = probe()
    if found is None:
        raise InstallError("the installed wheel cannot be imported")
    return found


def run(options: argparse.Namespace) -> str:
    """Do what the command line asks for and return the line to print.

    Raises:
        InstallError: any step failed, or `--check` found nothing.
    """
    found = None if options.force else probe()
    current = installed_build_id() in (None, build_id())
    if found is not None and (current or options.check):
        note = "" if current else " (built with an older list of fixes)"
        return f"Detectron2 {found[0]} at {found[1]}{note}"
    if options.check:
        raise InstallError("Detectron2 is not installed; run this without --check")
    version, location = install(options.sdist)
    return f"Detectron2 {version} installed at {location}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m solo_d2.install_detectron2", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--sdist", type=Path, metavar="FILE", help=f"a copy of {SDIST} instead of a download"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="only report; exit code 1 if missing")
    action.add_argument("--force", action="store_true", help="replace whatever is installed")
    try:
        print(run(parser.parse_args(arguments)))
    except InstallError as error:
        print(f"install_detectron2: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
