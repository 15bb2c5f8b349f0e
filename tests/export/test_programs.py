"""Nothing in a .pt2 or .torchscript file can run code, or anything but arithmetic on tensors."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile

import pytest
import torch
from torch import nn

from solo_d2.export import programs
from solo_d2.export.programs import load_pt2, load_torchscript

NEW_ENOUGH = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 9)
needs_pt2 = pytest.mark.skipif(not NEW_ENOUGH, reason="torch 2.9 has this layout of .pt2")


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(3.0))

    def forward(self, x):
        return ((x + self.weight).relu().flatten(1),)


IMAGE = torch.linspace(-2, 2, 18).reshape(1, 6, 3)


@pytest.fixture(scope="module")
def pt2(tmp_path_factory):
    path = tmp_path_factory.mktemp("pt2") / "small.pt2"
    sides = {"x": {1: 2 * torch.export.Dim("h", min=1, max=9)}}
    torch.export.save(torch.export.export(Small(), (IMAGE,), dynamic_shapes=sides), path)
    return path


def rewrite(source, target, change):
    """Copy an archive whose members, by their path below its folder, were changed in place."""
    with zipfile.ZipFile(source) as archive:
        members = {x.partition("/")[2]: archive.read(x) for x in archive.namelist()}
    change(members)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"any/{name}", content)
    return target


class Bomb:
    """A pickle that makes a file as it is read."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


def edit(members, name, *, replace=None, change=None):
    text = members[name].decode()
    if replace is not None:
        assert replace[0] in text
        text = text.replace(*replace)
    values = json.loads(text)
    if change is not None:
        change(values)
    members[name] = json.dumps(values).encode()


def call(marker):
    return f"open('{marker}', 'w')"


def an_expression(members, marker):
    symbol = next(x for x in nodes(json.loads(members[MODEL]), "expr_str") if "Symbol" in x)
    edit(members, MODEL, replace=(json.dumps(symbol), json.dumps(call(marker))))


def nodes(value, key):
    """All values of a key in a JSON value."""
    if isinstance(value, dict):
        yield from (x for name, x in value.items() if name == key)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from nodes(item, key)


def an_operator(name):
    return lambda members, _: edit(members, MODEL, replace=("torch.ops.aten.relu.default", name))


def a_container(members, marker):
    factory = {"default_factory_module": "os", "default_factory_name": "getcwd"}
    spec = {"type": "collections.defaultdict", "context": json.dumps(factory), "children_spec": []}

    def change(values):
        signature = values["graph_module"]["module_call_graph"][0]["signature"]
        signature["in_spec"] = json.dumps([1, spec])

    edit(members, MODEL, change=change)


def a_pickled_weight(members, marker):
    members["data/weights/weight_0"] = saved(Bomb(marker))
    edit(members, WEIGHTS, replace=('"use_pickle": false', '"use_pickle": true'))


def a_pickled_object(members, marker):
    members["data/constants/opaque_obj_0"] = pickle.dumps(Bomb(marker))


def a_file_of_old_weights(members, marker):
    members["data/weights/model.pt"] = saved({"weight": Bomb(marker)})


def a_library(members, marker):
    members["data/aotinductor/model/model.so"] = b"\x7fELF"


@needs_pt2
def test_a_program_gives_what_the_module_gives(pt2):
    for image in (IMAGE, IMAGE.repeat(1, 2, 1)):
        assert torch.equal(load_pt2(pt2)(image)[0], Small()(image)[0])


@needs_pt2
@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (an_expression, r"has \"open\('.*\" as expr_str"),
        (an_operator("torch.ops.aten.from_file.default"), r"uses 'torch.ops.aten.from_file.def"),
        (an_operator("torch.ops.aten.relu.__class__"), "uses 'torch.ops.aten.relu.__class__'"),
        (an_operator("torch.hub.load"), "uses 'torch.hub.load', which is none of the operators"),
        (an_operator("torch.os.system"), "uses 'torch.os.system'"),
        (an_operator("_operator.methodcaller"), "uses '_operator.methodcaller'"),
        (a_container, "as in_spec"),
        (a_pickled_weight, "has pickled tensors"),
        (a_pickled_object, "has a member 'any/data/constants/opaque_obj_0'"),
        (a_file_of_old_weights, "has a member 'any/data/weights/model.pt'"),
        (a_library, "has a member 'any/data/aotinductor/model/model.so'"),
    ],
)
def test_a_program_that_does_anything_else_is_refused(pt2, tmp_path, attack, said):
    marker = tmp_path / "marker"
    file = rewrite(pt2, tmp_path / "bad.pt2", lambda members: attack(members, marker))
    with pytest.raises(ValueError, match=said):
        load_pt2(file)
    assert not marker.exists()


@needs_pt2
def test_what_only_debuggers_need_is_left_out(pt2, tmp_path):
    marker = tmp_path / "marker"

    def change(members):
        members["data/sample_inputs/model.pt"] = saved(((Bomb(marker),), {}))
        edit(members, MODEL, change=lambda values: values.update(guards_code=[call(marker)]))

    file = rewrite(pt2, tmp_path / "odd.pt2", change)
    assert torch.equal(load_pt2(file)(IMAGE)[0], Small()(IMAGE)[0])
    assert not marker.exists()


@needs_pt2
def test_a_member_that_is_there_twice_is_refused(pt2, tmp_path):
    file = rewrite(pt2, tmp_path / "twice.pt2", lambda members: None)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("other/models/model.json", "{}")
    with pytest.raises(ValueError, match=r"has a member 'other/models/model\.json'"):
        load_pt2(file)


class Saving(nn.Module):
    def forward(self, x):
        torch.save(x, "marker")
        return (x,)


class Mapping(nn.Module):
    def forward(self, x):
        return (torch.from_file("marker", True, 1).add_(x[0, 0, 0]),)


class SavingInABranch(nn.Module):
    def forward(self, x):
        if bool(x.sum() > 0):
            torch.save(x, "marker")
        return (x,)


class Waking(nn.Module):
    def __init__(self):
        super().__init__()
        self.count = 1

    @torch.jit.export
    def __getstate__(self):
        return self.count

    @torch.jit.export
    def __setstate__(self, state: int):
        torch.save(torch.zeros(1), "marker")
        self.count = state

    def forward(self, x):
        return (x,)


def script(module, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(path))
    return path


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Saving, "uses 'aten::save', which is none of the operators"),
        (SavingInABranch, "uses 'aten::save'"),
        (Mapping, "uses 'aten::from_file'"),
        (Waking, "uses .*__setstate__"),
    ],
)
def test_torchscript_that_does_anything_else_is_refused(tmp_path, monkeypatch, module, said):
    monkeypatch.chdir(tmp_path)
    file = script(module(), tmp_path / "bad.torchscript")
    with pytest.raises(ValueError, match=said):
        load_torchscript(file)
    assert [x.name for x in tmp_path.iterdir()] == ["bad.torchscript"]


def test_torchscript_gives_what_the_module_gives(tmp_path):
    run = load_torchscript(script(Small(), tmp_path / "good.torchscript"))
    assert torch.equal(run(IMAGE)[0], Small()(IMAGE)[0])


def test_a_file_that_grows_without_bound_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "_BEYOND", 2**20)
    with zipfile.ZipFile(tmp_path / "bomb.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("any/data/weights/weight_0", bytes(2**21))
    with pytest.raises(ValueError, match="many times as large unpacked"):
        load_pt2(tmp_path / "bomb.pt2")
