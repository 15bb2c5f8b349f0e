"""What checkpoint files are read, and what every other file is told."""

from __future__ import annotations

import builtins
import io
import json
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from payloads import Payload
from torch import nn

from solo_d2.checkpoint import CheckpointInfo, load_checkpoint, load_state_dict, save_checkpoint
from solo_d2.checkpoint.formats import check_whole
from solo_d2.checkpoint.info import MSRA
from solo_d2.checkpoint.pickles import restricted_load
from solo_d2.io.atomic import atomic_write

INFO = CheckpointInfo("adelaidet", "SOLOv2 R50", "a.yaml", MSRA)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.fixture
def state():
    return nn.Linear(3, 2).state_dict()


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.any"])
def test_weights_come_back_as_saved(tmp_path, state, name):
    content = {"model": state, "solo_d2": INFO.to_dict()}
    save_checkpoint(content, tmp_path / name)
    assert same(load_state_dict(tmp_path / name), state)
    assert CheckpointInfo.from_dict(load_checkpoint(tmp_path / name)["solo_d2"]) == INFO
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_old_and_new_files_of_torch_are_read(tmp_path, state, zipped, mmap):
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert same(load_checkpoint(tmp_path / "a.pth", mmap=mmap)["model"], state)


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state"])
def test_weights_are_found_under_the_keys_of_other_projects(tmp_path, state, key):
    torch.save({key: state, "meta": {"epoch": 3}}, tmp_path / "a.pth")
    loaded = load_checkpoint(tmp_path / "a.pth")
    assert same(loaded["model"], state)
    assert loaded["meta"] == {"epoch": 3}


@pytest.mark.parametrize("name", ["a.pkl", "a.pth", "download"])
def test_content_decides_not_the_name(tmp_path, state, name):
    torch.save({"model": state}, tmp_path / name)
    assert same(load_state_dict(tmp_path / name), state)
    arrays = {k: v.numpy() for k, v in state.items()}
    (tmp_path / name).write_bytes(pickle.dumps({"model": arrays, "__author__": "me"}))
    assert same(load_state_dict(tmp_path / name), state)


def test_pickles_of_caffe2_are_marked_for_renaming(tmp_path):
    blobs = {"conv1_w": np.ones((2, 3), np.float32), "conv1_w_momentum": np.ones(2, np.float32)}
    for content in (blobs, {"blobs": blobs, "cfg": "text"}):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, 2))
        loaded = load_checkpoint(tmp_path / "a.pkl")
        assert list(loaded["model"]) == ["conv1_w"]
        assert (loaded["matching_heuristics"], loaded["__author__"]) == (True, "Caffe2")


ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    np.arange(4, dtype=">f4"),
    np.zeros((0, 3), np.float64),
    np.array(5, np.uint8),
    np.array([True, False]),
    np.arange(8, dtype=np.float16)[::2],
]


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_pickle_protocol_come_back(protocol):
    content = OrderedDict(a=ARRAYS, b=(1, "x", None, b"\xff", b""), c=np.float64(0.5))
    got = restricted_load(io.BytesIO(pickle.dumps(content, protocol)))
    for array, expected in zip(got["a"], ARRAYS, strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype.newbyteorder("=")
        assert array.flags.writeable and array.flags.owndata | (array.base is not None)
    assert got["b"] == (1, "x", None, b"\xff", b"")
    assert type(got["c"]) is float and got["c"] == 0.5


@pytest.mark.parametrize("package", ["numpy.core", "numpy._core"])
def test_arrays_of_both_numpys_and_of_python_2_come_back(package):
    def text(value):  # str of Python 2, with a length of one byte
        return b"U" + bytes([len(value)]) + value

    data = np.array([1.5, -2.0], "<f4").tobytes()
    # cnumpy _reconstruct(ndarray, (0,), "b") . __setstate__((1, (2,), dtype, False, data))
    by_hand = (
        b"\x80\x02c" + package.encode() + b".multiarray\n_reconstruct\n"
        b"cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\n" + text(b"f4") + b"K\x00K\x01\x87R"
        b"(K\x03" + text(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89" + text(data) + b"tb."
    )
    np.testing.assert_array_equal(restricted_load(io.BytesIO(by_hand)), [1.5, -2.0])


@pytest.mark.parametrize(
    "array", [np.array([{}], object), np.zeros(2, [("a", "f4")]), np.array(["2020"], "M8[Y]")]
)
def test_arrays_of_objects_and_records_are_refused(array):
    with pytest.raises(pickle.UnpicklingError):
        restricted_load(io.BytesIO(pickle.dumps(array)))


def test_sizes_that_a_file_states_are_checked():
    content = pickle.dumps(np.zeros(3, np.float32), 2)
    assert content.count(b"K\x03\x85") == 1  # the shape (3,)
    with pytest.raises(pickle.UnpicklingError, match="12 bytes"):
        restricted_load(io.BytesIO(content.replace(b"K\x03\x85", b"K\x63\x85")))


EVIL = {
    "raw.pkl": lambda x, path: path.write_bytes(pickle.dumps(x)),
    "text.pkl": lambda x, path: path.write_bytes(pickle.dumps(x, 0)),
    "nested.pkl": lambda x, path: path.write_bytes(pickle.dumps({"model": {"a": [x]}})),
    "raw.pth": lambda x, path: path.write_bytes(pickle.dumps(x)),
    "raw.pyth": lambda x, path: path.write_bytes(pickle.dumps(x)),
    "raw.safetensors": lambda x, path: path.write_bytes(pickle.dumps(x)),
    "zip.pth": lambda x, path: torch.save({"model": x}, path),
    "zip.pkl": lambda x, path: torch.save(x, path),
    "old.pth": lambda x, path: torch.save(x, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("name", EVIL)
def test_no_file_runs_code(tmp_path, name):
    path, marker = tmp_path / name, tmp_path / "marker"
    EVIL[name](Payload(marker), path)
    with pytest.raises(ValueError, match=rf"{name}: refused, .* run code \(posix\.mkdir\)"):
        load_checkpoint(path)
    assert not marker.exists()
    # Neither is the payload a dud.
    if name.startswith("raw"):
        pickle.loads(path.read_bytes())
        assert marker.exists()


class Call:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "call",
    [Call(builtins.eval, "1"), Call(bytes, 10), Call(getattr, "", "upper"), Call(np.ones, 3)],
)
def test_harmless_looking_names_are_refused_too(call):
    with pytest.raises(Exception, match=r"GLOBAL|argument"):
        restricted_load(io.BytesIO(pickle.dumps(call)))


def test_logs_that_mmengine_saves_are_left_out(tmp_path, monkeypatch, state):
    module = types.ModuleType("mmengine.history")

    class Buffer:
        def __init__(self):
            self.values = np.arange(3)

    Buffer.__module__, Buffer.__qualname__ = module.__name__, "Buffer"
    module.Buffer = Buffer
    content = {"state_dict": state, "hub": {"loss": Buffer()}, "best": np.float64(1)}
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "mmengine", types.ModuleType("mmengine"))
        patch.setitem(sys.modules, module.__name__, module)
        torch.save(content, tmp_path / "a.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pth", weights_only=True)
    for mmap in (False, True):
        loaded = load_checkpoint(tmp_path / "a.pth", mmap=mmap)
        assert same(loaded["model"], state)
    assert "mmengine.history" not in sys.modules
    with pytest.raises(pickle.UnpicklingError):  # nothing was allowed for good
        torch.load(tmp_path / "a.pth", weights_only=True)


def test_weights_that_are_objects_are_not_left_out(tmp_path, state):
    torch.save({"model": {**state, "x": np.float64(1)}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="'x' is a"):
        load_checkpoint(tmp_path / "a.pth")


def archive(*names):
    def write(path):
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(f"archive/{name}", "text")

    return write


BAD = {
    "missing.pth": (lambda path: None, "no such file"),
    "folder.pth": (lambda path: path.mkdir(), "is a folder"),
    "empty.pth": (lambda path: path.touch(), "is empty"),
    "empty.pkl": (lambda path: path.touch(), "is empty"),
    "garbage.pth": (lambda path: path.write_bytes(b"no checkpoint" * 9), "is no checkpoint"),
    "garbage.pkl": (lambda path: path.write_bytes(b"\x80\x02no"), "damaged"),
    "words.pkl": (lambda path: path.write_bytes(b"just words"), "damaged"),
    "garbage.safetensors": (lambda path: path.write_bytes(b"\xff" * 50), "is no checkpoint"),
    "json.pth": (lambda path: path.write_text('{"images": []}'), "is a JSON file"),
    "picture.pth": (lambda path: path.write_bytes(b"\x89PNG\r\n"), "is a PNG image"),
    "page.pth": (lambda path: path.write_text("<!doctype html>"), "is a web page"),
    "lfs.pth": (lambda path: path.write_text("version https://git-lfs.github.com"), "Git LFS"),
    "script.pth": (archive("data.pkl", "constants.pkl"), "is a TorchScript program"),
    "archive.pth": (archive("a.txt"), "is a zip archive"),
    "list.pth": (lambda path: torch.save([1], path), "holds a list"),
    "tensor.pth": (lambda path: torch.save(torch.zeros(2), path), "holds a Tensor"),
    "nothing.pth": (lambda path: torch.save({}, path), "holds no weights, but an empty dict"),
    "numbers.pth": (lambda path: torch.save({"a": {"b": 1}}, path), "holds no weights, but a"),
    "mixed.pth": (lambda path: torch.save({"a": torch.zeros(1), "b": 1}, path), "'b' is a int"),
    "text.pkl": (lambda path: path.write_bytes(pickle.dumps("text")), "holds a str"),
    "words_in.pkl": (
        lambda path: path.write_bytes(pickle.dumps({"a": np.array(["x"])})),
        "is an array of <U1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_in_one_line(tmp_path, name):
    make, said = BAD[name]
    make(tmp_path / name)
    with pytest.raises(ValueError, match=said) as caught:
        load_checkpoint(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.pkl"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.999])
def test_truncated_files_are_named(tmp_path, name, kept):
    path, model = tmp_path / name, nn.Linear(50, 50).state_dict()
    if name == "a.pkl":
        path.write_bytes(pickle.dumps({k: v.numpy() for k, v in model.items()}))
    else:
        save_checkpoint({"model": model}, path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(path)


@given(st.binary(max_size=60), st.sampled_from([b"", b"\x80\x02", b"\x80\x04", b"PK\x03\x04"]))
def test_no_content_raises_anything_else(tmp_path_factory, content, start):
    path = tmp_path_factory.getbasetemp() / "any.pkl"
    path.write_bytes(start + content)
    with pytest.raises(ValueError, match=r"any\.pkl"):
        load_checkpoint(path)


def test_damage_in_the_middle_is_found_by_the_checksums(tmp_path):
    path = tmp_path / "a.pth"
    save_checkpoint({"model": {"a": torch.ones(1000)}}, path)
    check_whole(path)
    content = bytearray(path.read_bytes())
    content[content.find(b"\x80?" * 2) + 1000] ^= 255
    path.write_bytes(content)
    load_checkpoint(path, verify=False)  # which is why there are checksums
    for check in (load_checkpoint, check_whole):
        with pytest.raises(ValueError, match=r"a\.pth: is damaged \(archive/data/0 has another"):
            check(path)


def test_missing_package_is_named(tmp_path, monkeypatch, state):
    save_checkpoint({"model": state}, tmp_path / "a.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ValueError, match="pip install safetensors"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_safetensors_says_what_it_cannot_hold(tmp_path, state):
    with pytest.raises(ValueError, match=r"cannot hold \['iteration'\]"):
        save_checkpoint({"model": state, "iteration": 3}, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_info_in_safetensors_that_is_no_json_is_named(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"solo_d2": "{"})
    with pytest.raises(ValueError, match=r"a\.safetensors: is damaged"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_failing_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_write(path) as file:
        file.write(b"new")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "a"
    link.symlink_to(tmp_path / "elsewhere" / "b")
    with atomic_write(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "b").read_text() == "new"


def test_rights_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    with atomic_write(tmp_path / "a"):
        pass
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_info_comes_back_as_json(tmp_path, state):
    save_checkpoint({"model": state, "solo_d2": INFO.to_dict()}, tmp_path / "a.safetensors")
    size = int.from_bytes((tmp_path / "a.safetensors").read_bytes()[:8], "little")
    header = json.loads((tmp_path / "a.safetensors").read_bytes()[8 : 8 + size])
    assert json.loads(header["__metadata__"]["solo_d2"])["architecture"] == "SOLOv2 R50"
