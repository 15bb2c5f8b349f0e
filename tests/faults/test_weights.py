"""Files of weights that are damaged, hostile or of no use: every one is an error with its name."""

from __future__ import annotations

import io
import os
import pickle
import random
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from payloads import Payload
from torch import nn

from solo_d2.checkpoint import (
    Require,
    SOLOCheckpointer,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from solo_d2.checkpoint import structure as structure_module
from solo_d2.checkpoint.structure import check_structure
from solo_d2.cli import convert
from solo_d2.modeling.backbone import timm
from solo_d2.modeling.backbone.timm import TimmBackbone


def linear(**changes):
    """The state dict of `nn.Linear(7, 5)`, with other entries."""
    torch.manual_seed(0)
    return {**nn.Linear(7, 5).state_dict(), **changes}


def refused(call, path, said):
    with pytest.raises(ValueError, match=said) as caught:
        call()
    text = str(caught.value)
    assert text.startswith(str(path)) and text.isprintable() and len(text) < 1000
    return text


def weight(value):
    return lambda: linear(weight=value())


NOT_WEIGHTS = {
    "meta": (weight(lambda: torch.empty(5, 7, device="meta")), "'weight' is a meta tensor"),
    "sparse": (weight(lambda: torch.eye(5, 7).to_sparse()), "'weight' is a sparse tensor"),
    "sparse rows": (weight(lambda: torch.eye(5, 7).to_sparse_csr()), "'weight' is a sparse"),
    "quantized": (
        weight(lambda: torch.quantize_per_tensor(torch.ones(5, 7), 0.1, 0, torch.qint8)),
        "'weight' is a quantized tensor",
    ),
    "nested": (
        weight(lambda: torch.nested.nested_tensor([torch.zeros(7), torch.zeros(6)])),
        "'weight' is a nested tensor",
    ),
    "a number": (weight(lambda: 1.5), "'weight' is a float, not a tensor"),
    "a list": (weight(lambda: [1.0, 2.0]), "'weight' is a list, not a tensor"),
    "nothing": (weight(lambda: None), "'weight' is a NoneType, not a tensor"),
    "integers": (weight(lambda: torch.ones(5, 7, dtype=torch.int64)), "weight has integers"),
    "bytes": (weight(lambda: torch.ones(5, 7, dtype=torch.uint8)), "weight has integers"),
    "booleans": (weight(lambda: torch.ones(5, 7, dtype=torch.bool)), "weight has integers"),
    "complex": (weight(lambda: torch.ones(5, 7, dtype=torch.complex64)), "weight has complex"),
    "NaN": (weight(lambda: torch.full((5, 7), float("nan"))), "NaN or infinity in weight"),
    "one NaN": (weight(lambda: torch.eye(5, 7).log().nan_to_num(neginf=float("nan"))), "NaN or"),
    "infinity": (weight(lambda: torch.eye(5, 7) / 0), "NaN or infinity in weight"),
    "minus infinity": (weight(lambda: torch.eye(5, 7).log()), "NaN or infinity in weight"),
    "NaN in half": (weight(lambda: torch.full((5, 7), float("nan")).half()), "NaN or infinity"),
    "infinite bfloat16": (weight(lambda: (torch.eye(5, 7) / 0).bfloat16()), "NaN or infinity"),
    "too large for 32 bits": (
        weight(lambda: torch.full((5, 7), 1e300, dtype=torch.float64)),
        "NaN or infinity in weight",
    ),
    "NaN in the bias": (lambda: linear(bias=torch.full((5,), float("nan"))), "infinity in bias"),
    "NaN in pixel_std": (
        lambda: linear(pixel_std=torch.full((3, 1, 1), float("nan"))),
        "NaN or infinity in pixel_std",
    ),
    "a name of two lines": (lambda: linear(**{"a\nb": torch.zeros(1)}), r"the entry 'a\\nb'"),
    "a number as name": (lambda: {**linear(), 3: torch.zeros(1)}, "the entry a int is no name"),
    "an endless name": (lambda: linear(**{"a" * 501: torch.zeros(1)}), "is no name of a weight"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of what it is about to give up
@pytest.mark.parametrize("name", NOT_WEIGHTS)
@pytest.mark.parametrize("require", Require)
def test_what_is_no_weight_is_refused_by_name(tmp_path, name, require):
    make, said = NOT_WEIGHTS[name]
    path = tmp_path / "a.pth"
    torch.save({"model": make()}, path)
    model = nn.Linear(7, 5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    checkpointer = SOLOCheckpointer(model, require=require)
    refused(lambda: checkpointer.load(str(path)), path, said)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("value", [np.nan, np.inf, 3, True])
@pytest.mark.parametrize("name", ["a.pkl", "a.safetensors"])
def test_other_formats_are_checked_as_well(tmp_path, name, value):
    path = tmp_path / name
    state = linear(weight=torch.from_numpy(np.full((5, 7), value)))
    if name == "a.pkl":
        path.write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in state.items()}}))
    else:
        save_checkpoint({"model": state}, path)
    refused(lambda: load_weights(nn.Linear(7, 5), path), path, "weight")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_floats_of_any_size_are_taken(tmp_path, name, dtype):
    path = tmp_path / name
    state = {key: value.to(dtype) for key, value in linear().items()}
    save_checkpoint({"model": state}, path)
    model = nn.Linear(7, 5)
    load_weights(model, path)
    assert torch.equal(model.weight, state["weight"].float())


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("running_var", torch.tensor([1.0, -1e-9]), "running_var has negative variances"),
        ("running_var", torch.tensor([1.0, float("nan")]), "NaN or infinity in running_var"),
        ("running_mean", torch.tensor([1.0, float("inf")]), "NaN or infinity in running_mean"),
        ("num_batches_tracked", torch.tensor(1.5), "num_batches_tracked has real numbers"),
        ("running_var", torch.tensor([0.0, 1.0]), None),
        ("num_batches_tracked", torch.tensor(2**40), None),
    ],
)
def test_buffers_are_checked_too(tmp_path, key, value, said):
    path = tmp_path / "a.pth"
    save_checkpoint({"model": {**nn.BatchNorm2d(2).state_dict(), key: value}}, path)
    model = nn.BatchNorm2d(2)
    if said:
        refused(lambda: load_weights(model, path), path, said)
    else:
        load_weights(model, path)
        assert torch.equal(model.state_dict()[key], value)


# Structure


def tree(make, leaf, depth=45):
    for _ in range(depth):
        leaf = make(leaf)
    return leaf


def from_outside():
    """Lists that share the next one, made before that is filled."""
    first = inner = []
    for _ in range(50):
        following = []
        inner += [following, following]
        inner = following
    return first


def itself():
    value = []
    value.append(value)
    return value


STRUCTURES = {
    "lists": lambda: tree(lambda x: [x, x], []),
    "dicts": lambda: tree(lambda x: {"a": x, "b": x}, {}, 60),
    "tuples": lambda: tree(lambda x: (x, x), ()),
    "mixed": lambda: tree(lambda x: [(x, {"a": x})], 0, 33),
    "filled from outside": from_outside,
    "keys": lambda: {tree(lambda x: (x, x), (), 22): 1, "deep": tree(lambda x: (x, x), ())},
    "wide": lambda: tree(lambda x: [x] * 1000, 0, 3),
    "itself": itself,
    "itself in a tuple": lambda: (itself(),),
}


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("kind", ["model.pkl", "extra.pkl", "model.pth", "extra.pth", "old.pth"])
def test_shared_and_deep_structures_are_refused_at_once(tmp_path, name, kind):
    value, path = STRUCTURES[name](), tmp_path / kind
    state = linear() if kind.endswith(".pth") else {k: v.numpy() for k, v in linear().items()}
    if kind.startswith("model"):
        content = {"model": {**state, "x": value}}
    else:
        content = {"model": state, "extra": value}
    if kind.endswith(".pkl"):
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind != "old.pth")
    refused(lambda: load_checkpoint(path), path, "its containers|itself")


@pytest.mark.parametrize("name", ["a.pkl", "a.pth"])
def test_deep_structures_are_refused(tmp_path, name):
    """{"model": [[[...]]]}, which Python's own pickler does not write."""
    path, depth = tmp_path / name, 5000
    content = b"\x80\x04}\x8c\x05model" + b"]" * depth + b"a" * (depth - 1) + b"s."
    if name == "a.pkl":
        path.write_bytes(content)
    else:
        archive(path, {"a/data.pkl": content, "a/version": "3"})
    refused(lambda: load_checkpoint(path), path, "more than 100 containers in one another")


def test_shared_hashes_are_refused_before_they_are_computed():
    """The tuple is a key: hashing it while the pickle is read would take 2^60 steps."""
    key = b")" + b"q\x00h\x00\x86" + b"q\x00h\x00\x86" * 60
    with pytest.raises(pickle.UnpicklingError, match="shared so often"):
        check_structure(io.BytesIO(b"\x80\x02}" + key + b"K\x01s."))


def test_limits_of_structures_are_exact(monkeypatch):
    monkeypatch.setattr(structure_module, "MAX_VALUES", 6)
    monkeypatch.setattr(structure_module, "MAX_DEPTH", 3)
    for value in ([1] * 6, [[1, 2], [3, 4]], {"a": 1, "b": 2, "c": 3}, [[[]]]):
        check_structure(io.BytesIO(pickle.dumps(value)))
    for value in ([1] * 7, [[1, 2], [3, 4, 5]], {"a": 1, "b": 2, "c": [4]}, [[[[]]]]):
        with pytest.raises(pickle.UnpicklingError):
            check_structure(io.BytesIO(pickle.dumps(value)))


def count(value):
    """Values in a container and in all below it."""
    if isinstance(value, dict):
        return sum(2 + count(key) + count(item) for key, item in value.items())
    return sum(1 + count(item) for item in value) if isinstance(value, list | tuple) else 0


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda x: st.lists(x) | st.tuples(x, x) | st.dictionaries(st.text() | st.integers(), x),
)


@given(PLAIN.map(lambda x: [x, x]), st.integers(0, 5))
def test_any_plain_value_is_counted_as_it_is(value, protocol):
    stream = io.BytesIO(pickle.dumps(value, protocol) + b"rest")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structure_module, "MAX_VALUES", count(value))
        check_structure(stream)
        assert stream.read() == b"rest"
        patch.setattr(structure_module, "MAX_VALUES", count(value) - 1)
        stream.seek(0)
        with pytest.raises(pickle.UnpicklingError):
            check_structure(stream)


@pytest.mark.parametrize("protocol", range(6))
def test_shared_values_within_the_limits_stay_shared(tmp_path, protocol):
    shared = {"a": (1, 2)}
    content = {"model": {"w": np.ones(2, np.float32)}, "x": [shared, shared]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    first, second = load_checkpoint(tmp_path / "a.pkl")["x"]
    assert first == shared and first is second


# Sizes


def archive(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in members.items():
            file.writestr(name, content)


def members(path):
    with zipfile.ZipFile(path) as file:
        return {info.filename: file.read(info) for info in file.infolist()}


def edited(path, change, twice=None):
    """A file of `torch.save` of which a function changes the parts, or one comes twice."""
    torch.save({"model": linear()}, path)
    parts = change(members(path))
    archive(path, parts)
    if twice:
        with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as file:
            warnings.simplefilter("ignore")
            file.writestr(twice, parts[twice])


def larger(parts):
    """The pickle speaks of a million numbers where the file has 35."""
    pickled = parts["a/data.pkl"]
    for old, new in ((b"K#t", b"J\x00\x00\x10\x00t"), (b"K\x05K\x07", b"M\x00\x90K\x1c")):
        assert pickled.count(old) == 1
        pickled = pickled.replace(old, new)
    return {**parts, "a/data.pkl": pickled}


MEGABYTE = torch.ones(1 << 18)


class SharedBytes:
    """Pickled as an array whose bytes another one has, too."""

    data = bytes(1 << 20)

    def __reduce__(self):
        rebuild, arguments, _ = np.zeros(1).__reduce__()
        return rebuild, arguments, (1, (1 << 18,), np.dtype("f4"), False, self.data)


def without_storages(path):
    torch.save({"w": MEGABYTE}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[: -(1 << 20)])


SIZES = {
    "more numbers than bytes": (lambda path: edited(path, larger), "damaged|need"),
    "repeated by strides": (
        lambda path: torch.save({"model": {"a": torch.ones(1).expand(1 << 40)}}, path),
        "its tensors need 4398046511104 bytes",
    ),
    "many views of one memory": (
        lambda path: torch.save({"model": {str(i): MEGABYTE.view(-1) for i in range(513)}}, path),
        "its tensors need",
    ),
    "arrays that share bytes": (
        lambda path: path.write_bytes(pickle.dumps({str(i): SharedBytes() for i in range(9)}, 4)),
        "its arrays are larger than the file",
    ),
    "compressed": (
        lambda path: archive(path, {"a/data.pkl": bytes(9)}, compression=zipfile.ZIP_DEFLATED),
        "is compressed",
    ),
    "compressed a thousandfold": (
        lambda path: archive(
            path, {"a/data.pkl": bytes(50 << 20)}, compression=zipfile.ZIP_DEFLATED
        ),
        "is compressed",
    ),
    "parts of one name": (
        lambda path: edited(path, lambda parts: parts, twice="a/data/0"),
        "parts overlap or have one name",
    ),
    "old format without its storages": (without_storages, "damaged|need"),
}


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_a_file_states_are_not_believed(tmp_path, name, mmap):
    make, said = SIZES[name]
    path = tmp_path / "a.pth"
    make(path)
    refused(lambda: load_checkpoint(path, mmap=mmap), path, said)


def test_weights_that_are_shared_a_few_times_are_read(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"model": {str(i): MEGABYTE.view(512, 512) for i in range(7)}}, path)
    loaded = load_checkpoint(path)["model"]
    assert len(loaded) == 7 and all(x.sum() == 1 << 18 for x in loaded.values())


# Archives


def flip(path, find, offset=0, bit=1):
    content = bytearray(path.read_bytes())
    start = content.rindex(find) + offset
    content[start] ^= bit
    path.write_bytes(content)


def polyglot(path):
    """A tar archive, of which torch before 2.6 runs what is in it, that begins as an old file."""
    torch.save({"w": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    name = path.read_bytes()[:30].decode("latin1")
    with tarfile.open(path, "w", encoding="latin1", format=tarfile.USTAR_FORMAT) as file:
        file.addfile(tarfile.TarInfo(name.partition("\0")[0]), io.BytesIO())


ARCHIVES = {
    "a bit of a weight": (
        lambda path: flip(path, linear()["weight"].numpy().tobytes(), 31),
        "has another checksum",
    ),
    "a bit of the pickle": (lambda path: flip(path, b"ctorch._utils", 3), "another checksum"),
    "a bit of the version": (lambda path: flip(path, b"a/version", 10), "damaged"),
    "a bit of a name": (lambda path: flip(path, b"a/data/0", 3), "damaged"),
    "a name that is no UTF-8": (lambda path: flip(path, b"a/data/0", 3, 128), "damaged"),
    "a bit of a checksum": (lambda path: flip(path, b"PK\x01\x02", 16), "damaged"),
    "encrypted, it says": (lambda path: flip(path, b"PK\x01\x02", 8), "damaged"),
    "an unknown compression": (lambda path: flip(path, b"PK\x01\x02", 10, 64), "is compressed"),
    "no directory": (lambda path: flip(path, b"PK\x05\x06"), "damaged or cut off"),
    "a tar archive behind the start of an old file": (polyglot, "is a tar archive"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_damaged_archives_are_named(tmp_path, name):
    change, said = ARCHIVES[name]
    path = tmp_path / "a.pth"
    torch.save({"model": linear()}, path)
    change(path)
    refused(lambda: load_weights(nn.Linear(7, 5), path), path, said)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_no_changed_bit_gets_through(tmp_path, name):
    """Of the files that this package writes: each of 200 is read as it was, or refused."""
    state, path = linear(), tmp_path / name
    save_checkpoint({"model": state}, path)
    whole, rnd = path.read_bytes(), random.Random(0)
    refusals = 0
    for _ in range(200):
        content = bytearray(whole)
        content[rnd.randrange(len(content))] ^= 1 << rnd.randrange(8)
        path.write_bytes(content)
        try:
            loaded = load_checkpoint(path)["model"]
        except ValueError as error:
            assert str(error).startswith(str(path)) and str(error).isprintable()
            refusals += 1
        else:
            assert all(torch.equal(loaded[key], value) for key, value in state.items())
    assert refusals > 50


# Every key goes the same way


def through_timm(path):
    model = nn.Linear(7, 5)
    backbone = TimmBackbone.__new__(TimmBackbone)
    nn.Module.__init__(backbone)
    backbone.model = model
    backbone.load_imagenet(timm._read_weights(str(path)))


def through_the_converter(path):
    args = convert.make_parser().parse_args([str(path), str(path.with_suffix(".out.pth"))])
    convert.convert(args)


WAYS = {
    "prediction": lambda path: load_weights(nn.Linear(7, 5), path),
    "training": lambda path: SOLOCheckpointer(nn.Linear(7, 5), require=Require.BACKBONE).load(
        str(path), checkpointables=[]
    ),
    "timm": through_timm,
    "converter": through_the_converter,
}


def save(path, content):
    torch.save(content, path)


def save_with_a_changed_bit(path):
    torch.save({"model": linear()}, path)
    ARCHIVES["a bit of a weight"][0](path)


HOSTILE = {
    "code": (lambda path: save(path, {"a": Payload(path.with_name("made"))}), "run code"),
    "one bit": (save_with_a_changed_bit, "has another checksum"),
    "shared": (lambda path: save(path, {"model": linear(), "x": STRUCTURES["lists"]()}), "shared"),
    "sparse": (lambda path: save(path, NOT_WEIGHTS["sparse"][0]()), "sparse"),
    "compressed": (SIZES["compressed"][0], "compressed"),
    "tar": (polyglot, "tar archive"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "pipe": (lambda path: os.mkfifo(path), "is a pipe"),
    "missing": (lambda path: None, "no such file"),
    "link to itself": (lambda path: path.symlink_to(path), "cannot be read"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", HOSTILE)
def test_every_key_goes_through_the_one_reader(tmp_path, name, way):
    make, said = HOSTILE[name]
    path = tmp_path / "a.pth"
    make(path)
    with pytest.raises(ValueError, match=said) as caught:
        WAYS[way](path)
    assert str(path) in str(caught.value) and str(caught.value).isprintable()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("value", ["NaN", "integers", "complex"])
def test_values_of_timm_weights_are_checked(tmp_path, value):
    make, said = NOT_WEIGHTS[value]
    torch.save(make(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=f"MODEL.TIMM.WEIGHTS.*{said}"):
        through_timm(tmp_path / "a.pth")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "a\0b", "x" * 300])
def test_names_that_are_no_files_are_told(path):
    with pytest.raises(ValueError, match=r"pipe or a device|cannot be read|no such file") as caught:
        load_weights(nn.Linear(7, 5), path)
    assert str(caught.value).isprintable()
