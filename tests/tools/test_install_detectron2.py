"""The installer's steps on tiny archives: no network, no pip, no real sdist."""

import ast
import base64
import hashlib
import importlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "solo_d2"


@pytest.fixture(scope="module")
def installer():
    return importlib.import_module("solo_d2.install_detectron2")


SOURCES = {
    "setup.py": "import torch\n",
    "LICENSE": "Apache\n",
    "detectron2/__init__.py": '__version__ = "0.6"\n',
    "detectron2/data.py": "a = np.int\nb = np.int\n",
    "detectron2/notes.txt": "not code\n",
    "detectron2/model_zoo/configs/Base.yaml": "A: 1\n",
    "detectron2/model_zoo/configs/common/x.py": "x = 1\n",
    "projects/PointRend/point_rend/__init__.py": "",
    "projects/PointRend/train_net.py": "",
    "tools/__init__.py": "",
    "tools/train_net.py": "",
}


def make_sdist(path, sources=SOURCES):
    with tarfile.open(path, "w:gz") as archive:
        folder = tarfile.TarInfo("pb1-detectron2-0.6")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, text in sources.items():
            info = tarfile.TarInfo(f"pb1-detectron2-0.6/{name}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def run_main(installer, capsys, *arguments):
    """Exit code and stderr of the command line."""
    code = installer.main(arguments)
    return code, capsys.readouterr().err


def test_sdist_is_read_below_its_top_folder_and_without_directories(installer, tmp_path):
    files = installer.read_sdist(make_sdist(tmp_path / "a.tar.gz"))
    assert files == {name: text.encode() for name, text in SOURCES.items()}


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_unreadable_archive_is_named(installer, tmp_path, content):
    path = tmp_path / "broken.tar.gz"
    path.write_bytes(content)
    with pytest.raises(installer.InstallError, match=r"broken\.tar\.gz is not a readable"):
        installer.read_sdist(path)


def test_fix_replaces_exactly_its_text_and_leaves_the_input_alone(installer):
    files = {"a.py": b"x = np.int\n", "b.py": b"x = np.int\n"}
    fix = installer.Fix("a.py", "np.int", "int", "alias is gone")
    assert installer.apply_fixes(files, [fix]) == {"a.py": b"x = int\n", "b.py": b"x = np.int\n"}
    assert files["a.py"] == b"x = np.int\n"


@pytest.mark.parametrize(("times", "found"), [(1, 2), (3, 2)])
def test_fix_with_another_number_of_matches_is_an_error(installer, times, found):
    fix = installer.Fix("a.py", "np.int", "int", "alias is gone", times)
    expected = rf"a\.py \(alias is gone\): 'np.int' occurs {found} times, expected {times}"
    with pytest.raises(installer.InstallError, match=expected):
        installer.apply_fixes({"a.py": b"np.int np.int"}, [fix])


def test_fix_applied_twice_is_an_error(installer):
    fix = installer.Fix("a.py", "np.int", "int", "alias is gone")
    once = installer.apply_fixes({"a.py": b"np.int"}, [fix])
    with pytest.raises(installer.InstallError, match="occurs 0 times, expected 1"):
        installer.apply_fixes(once, [fix])


def test_fix_for_a_missing_file_is_an_error(installer):
    fix = installer.Fix("gone.py", "x", "y", "some reason")
    with pytest.raises(installer.InstallError, match=r"gone\.py \(some reason\): the file is miss"):
        installer.apply_fixes({"a.py": b"x"}, [fix])


def test_every_listed_fix_can_only_be_applied_once_and_says_why(installer):
    for fix in installer.FIXES:
        assert fix.times >= 1 and fix.reason
        assert fix.old and fix.old not in fix.new, f"{fix.file}: would match again"
    assert len({(fix.file, fix.old) for fix in installer.FIXES}) == len(installer.FIXES)


def test_build_id_changes_with_the_fixes(installer):
    fixes = [installer.Fix("a.py", "x", "y", "reason")]
    assert installer.build_id(fixes) == installer.build_id(list(fixes))
    assert installer.build_id(fixes) != installer.build_id([fixes[0]._replace(new="z")])
    assert installer.build_id(fixes) != installer.build_id([])


def test_wheel_holds_the_package_its_configs_and_projects_but_no_tools(installer, tmp_path):
    files = {name: text.encode() for name, text in SOURCES.items()}
    wheel = installer.build_wheel(files, tmp_path)
    assert wheel.name == "detectron2-0.6-py3-none-any.whl"
    info = "detectron2-0.6.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == {
            "detectron2/__init__.py",
            "detectron2/data.py",
            "detectron2/model_zoo/configs/Base.yaml",
            "detectron2/model_zoo/configs/common/x.py",
            "detectron2/projects/point_rend/__init__.py",
            f"{info}/LICENSE",
            f"{info}/METADATA",
            f"{info}/RECORD",
            f"{info}/WHEEL",
            f"{info}/solo_d2_build_id.txt",
            f"{info}/top_level.txt",
        }
        metadata = archive.read(f"{info}/METADATA").decode().splitlines()
        assert archive.read(f"{info}/top_level.txt") == b"detectron2\n"
        assert b"Root-Is-Purelib: true\nTag: py3-none-any" in archive.read(f"{info}/WHEEL").replace(
            b"\nGenerator: solo_d2", b""
        )
    assert {"Name: detectron2", "Version: 0.6"} <= set(metadata)
    required = {line.partition(": ")[2] for line in metadata if line.startswith("Requires-Dist")}
    assert {"fvcore>=0.1.5", "iopath>=0.1.7", "omegaconf>=2.1", "hydra-core>=1.1"} <= required
    assert not [name for name in required if "<" in name or "==" in name or "torch" in name]


def test_record_states_hash_and_size_of_every_file(installer, tmp_path):
    wheel = installer.build_wheel({"detectron2/__init__.py": b"x = 1\n"}, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        record = archive.read("detectron2-0.6.dist-info/RECORD").decode().splitlines()
        rows = dict(line.split(",", 1) for line in record)
        assert set(rows) == set(archive.namelist())
        assert rows.pop("detectron2-0.6.dist-info/RECORD") == ","
        for name, row in rows.items():
            content = archive.read(name)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
            assert row == f"sha256={digest.rstrip('=')},{len(content)}"


def test_sdist_without_the_package_is_refused(installer, tmp_path):
    with pytest.raises(installer.InstallError, match="holds no detectron2 package"):
        installer.build_wheel({"tools/__init__.py": b""}, tmp_path)


def test_sha256_is_compared(installer, tmp_path):
    path = tmp_path / "some.tar.gz"
    path.write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    installer.check_sha256(path, digest)
    with pytest.raises(installer.InstallError, match=rf"SHA-256 {digest}, expected 0000"):
        installer.check_sha256(path, "0" * 64)
    with pytest.raises(installer.InstallError, match="no such file"):
        installer.check_sha256(tmp_path / "none.tar.gz", digest)


def test_command_refuses_another_sdist_in_one_line(installer, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(installer, "probe", lambda: None)
    monkeypatch.setattr(installer, "run_pip", lambda *a, **k: pytest.fail("pip must not run"))
    monkeypatch.setattr(installer.importlib.util, "find_spec", lambda name: object())
    sdist = make_sdist(tmp_path / "other.tar.gz")
    code, stderr = run_main(installer, capsys, "--sdist", str(sdist))
    assert code == 1
    assert stderr.count("\n") == 1 and "is not the pinned pb1-detectron2==0.6" in stderr


def test_command_without_torch_says_what_to_run(installer, capsys, monkeypatch):
    monkeypatch.setattr(installer, "probe", lambda: None)
    monkeypatch.setattr(installer.importlib.util, "find_spec", lambda name: name == "pip" or None)
    code, stderr = run_main(installer, capsys)
    assert code == 1
    assert stderr.count("\n") == 1 and "pip install torch torchvision" in stderr


@pytest.mark.parametrize("ours", [None, "current"])
def test_importable_detectron2_is_left_alone(installer, capsys, monkeypatch, ours):
    built = ours and installer.build_id()
    monkeypatch.setattr(installer, "probe", lambda: ("0.7", "/some/where"))
    monkeypatch.setattr(installer, "installed_build_id", lambda: built)
    monkeypatch.setattr(installer, "install", lambda sdist: pytest.fail("must not install"))
    assert installer.main([]) == 0
    assert capsys.readouterr().out == "Detectron2 0.7 at /some/where\n"


def test_own_build_with_other_fixes_is_replaced(installer, capsys, monkeypatch):
    monkeypatch.setattr(installer, "probe", lambda: ("0.6", "/some/where"))
    monkeypatch.setattr(installer, "installed_build_id", lambda: "older")
    monkeypatch.setattr(installer, "install", lambda sdist: ("0.6", "/new"))
    assert installer.main([]) == 0
    assert "installed at /new" in capsys.readouterr().out


def test_check_only_reports(installer, capsys, monkeypatch):
    monkeypatch.setattr(installer, "install", lambda sdist: pytest.fail("must not install"))
    monkeypatch.setattr(installer, "probe", lambda: None)
    code, stderr = run_main(installer, capsys, "--check")
    assert code == 1 and stderr.count("\n") == 1 and "not installed" in stderr
    monkeypatch.setattr(installer, "probe", lambda: ("0.6", "/some/where"))
    monkeypatch.setattr(installer, "installed_build_id", lambda: "older")
    assert installer.main(["--check"]) == 0
    assert "older list of fixes" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    [
        "__init__.py",
        "_moved.py",
        "_missing.py",
        "_version.py",
        "install_detectron2.py",
        "_detectron2_fixes.py",
    ],
)
def test_installer_imports_only_the_standard_library(name):
    tree = ast.parse((PACKAGE / name).read_text())
    tree.body = [node for node in tree.body if "TYPE_CHECKING" not in ast.unparse(node)[:20]]
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {
        node.module.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level
    }
    assert imported <= set(sys.stdlib_module_names)


def test_metadata_needs_neither_torch_nor_the_listed_requirements(installer, tmp_path):
    for name, text in installer.TORCH_STAND_IN.items():
        path = tmp_path / "stand_in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "setup.py").write_text(
        "from setuptools import setup\n"
        "import torch\n"
        "from torch.utils.cpp_extension import CUDA_HOME, CppExtension, CUDAExtension, ROCM_HOME\n"
        "assert [int(x) for x in torch.__version__.split('.')[:2]] >= [1, 8]\n"
        "assert torch.version.hip is None and not torch.cuda.is_available()\n"
        "setup(name='some-name', version='0.6', ext_modules=[CppExtension('a._C', ['a.cpp'])],\n"
        "      install_requires=['black==21.4b2'], extras_require={'all': ['a @ https://b/c.zip']},\n"
        "      cmdclass={'build_ext': torch.utils.cpp_extension.BuildExtension})\n"
    )
    subprocess.run(
        [sys.executable, "setup.py", "egg_info"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "stand_in")},
        check=True,
        capture_output=True,
    )
    metadata = (tmp_path / "some_name.egg-info" / "PKG-INFO").read_text()
    assert "Name: some-name\nVersion: 0.6\n" in metadata
    assert "Requires-Dist" not in metadata and "Provides-Extra" not in metadata
