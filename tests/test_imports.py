"""Importing has no side effects, and modules import in one direction only (design §2)."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import solo_d2

ROOT = Path(solo_d2.__file__).parent

SIDE_EFFECTS = """
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
import detectron2.data.datasets
import torch

def state():
    return set(DatasetCatalog.list()), set(MetadataCatalog.list()), get_cfg().dump()

generator = torch.get_rng_state()
before = state()
import solo_d2, solo_d2.engine, solo_d2.evaluation, solo_d2.data.checks
assert state() == before
assert torch.equal(torch.get_rng_state(), generator)
assert not torch.cuda.is_initialized()
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY
assert "SOLO" in META_ARCH_REGISTRY
assert "build_timm_fpn_backbone" in BACKBONE_REGISTRY
assert "SOLOv2" not in META_ARCH_REGISTRY
"""


LAZY = """
import sys
import solo_d2
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"torch", "numpy", "cv2", "detectron2"}, loaded
assert set(solo_d2.__all__) <= set(dir(solo_d2))
"""


FIRST_USE = """
import solo_d2
from detectron2.modeling import META_ARCH_REGISTRY
assert "SOLO" in META_ARCH_REGISTRY
solo_d2.add_solo_config
try:
    solo_d2.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise AssertionError
"""


ROOM = """
from solo_d2.checkpoint import convert_state_dict
import sys
assert "detectron2.modeling" not in sys.modules
from detectron2.modeling import META_ARCH_REGISTRY
assert "SOLO" in META_ARCH_REGISTRY
"""


WEIGHTS = """
from solo_d2.checkpoint.places import find_weights
try:
    find_weights("solo://adelaidet/nothing")
except ValueError as error:
    assert "is not a published checkpoint" in str(error)
else:
    raise AssertionError
"""


ASKED = """
import importlib.util, solo_d2
assert importlib.util.find_spec("detectron2.modeling") is not None
from detectron2.modeling import META_ARCH_REGISTRY
assert "SOLO" in META_ARCH_REGISTRY
"""


# As in Detectron2's plain_train_net.py, before and after this package.
SOLVER = """
import torch
FIRST
SECOND
cfg = get_cfg()
add_solo_config(cfg)
cfg.SOLVER.OPTIMIZER = "ADAMW"
assert type(build_optimizer(cfg, torch.nn.Linear(2, 2))) is torch.optim.AdamW
"""
PARTS = (
    "from detectron2.config import get_cfg\nfrom detectron2.solver import build_optimizer",
    "from solo_d2 import add_solo_config",
)
SOLVER_AFTER = SOLVER.replace("FIRST", PARTS[1]).replace("SECOND", PARTS[0])
SOLVER = SOLVER.replace("FIRST", PARTS[0]).replace("SECOND", PARTS[1])


# One interpreter, which has imported what takes longest of other projects, forks for each of them.
IN_FORKS = """
import os, sys
import cv2, pycocotools.mask, timm, torch, torchvision.ops
assert not {"solo_d2", "detectron2"} & set(sys.modules)
for program in sys.argv[1:]:
    if not os.fork():
        import types
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(program, main.__dict__)
        break
    if os.wait()[1]:
        sys.exit(program)
"""


def test_names_are_loaded_at_their_first_use_and_importing_registers_classes_and_nothing_else():
    in_forks = [FIRST_USE, ROOM, WEIGHTS, SIDE_EFFECTS, ASKED, SOLVER, SOLVER_AFTER]
    for program in ([LAZY], [IN_FORKS, *in_forks]):
        done = subprocess.run([sys.executable, "-c", *program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("detectron2", "-m solo_d2.install_detectron2"),
        ("torch", "-m pip install torch torchvision"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(missing, command):
    program = f"""
import sys
sys.modules[{missing!r}] = None
from solo_d2 import SOLOPredictor
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert (done.returncode, last) == (1, f"{sys.executable} {command}")


@pytest.mark.parametrize(
    "module",
    [
        "solo_d2",
        "solo_d2.data",
        "solo_d2.engine",
        "solo_d2.evaluation",
        "solo_d2.export",
        "solo_d2.layers",
        "solo_d2.model_zoo",
        "solo_d2.modeling",
        "solo_d2.modeling.heads",
        "solo_d2.inference",
        "solo_d2.report",
        "solo_d2.web",
        "solo_d2.tracking",
    ],
)
def test_public_names_exist(module):
    loaded = importlib.import_module(module)
    assert all(hasattr(loaded, name) for name in getattr(loaded, "__all__", []))


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def own_imports(path):
    """Modules of ours that a file imports anywhere, as dotted names without ``solo_d2.``."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{stem}.{alias.name}"
                found.add(name if is_module(name) else stem)
    return {name.partition(".")[2] for name in found if name.split(".")[0] == "solo_d2"}


def is_module(name):
    path = ROOT.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


# What may be imported, by the longest prefix that fits the importing module.
ALLOWED = {
    "config": ["io", "config"],
    "solver": [],
    "layers": ["layers"],
    "modeling.grid": ["layers"],
    "modeling.structures": ["layers"],
    "modeling.towers": ["layers"],
    "modeling.output": ["layers"],
    "modeling.refinement": ["layers", "modeling.output"],
    "modeling.aux_semantic": ["layers", "modeling.structures", "modeling.towers"],
    "modeling.heads": [
        "layers",
        "modeling.grid",
        "modeling.structures",
        "modeling.towers",
        "modeling.heads",
    ],
    "modeling.lost_objects": [],
    "modeling.bitmaps": [],
    "modeling.targets": [
        *("layers", "modeling.grid", "modeling.structures", "modeling.lost_objects"),
        "modeling.bitmaps",
    ],
    "modeling.mask_pieces": ["layers", "modeling.structures"],
    "modeling.criterion": ["layers", "modeling.mask_pieces", "modeling.structures"],
    "modeling.dynamic_assigner": [
        *("layers", "modeling.grid", "modeling.structures", "modeling.mask_pieces"),
        *("modeling.targets", "modeling.lost_objects"),
    ],
    "modeling.postprocessing": [
        *("layers", "modeling.grid", "modeling.output", "modeling.refinement"),
    ],
    "modeling.backbone": ["layers", "io", "checkpoint", "modeling.backbone"],
    "modeling": ["config", "layers", "modeling"],
    "io": ["layers", "io"],
    "data": ["layers", "io", "data"],
    "data.datasets": ["layers", "io", "data.datasets"],
    "evaluation": ["layers", "io", "evaluation"],
    "check": [
        *("config", "layers", "io", "modeling", "data", "evaluation", "check"),
        "inference.drawing",
    ],
    "checkpoint": ["config", "layers", "io", "checkpoint"],
    "checkpoint.foreign": ["config", "io", "checkpoint.foreign", "checkpoint.info"],
    "engine.arguments": ["data.arguments", "config"],
    "engine": [
        *("config", "layers", "io", "checkpoint", "modeling", "data", "evaluation", "model_zoo"),
        *("solver", "export", "check", "_version", "engine"),
    ],
    "export": ["config", "io", "layers", "modeling", "model_zoo", "_version", "export"],
    "model_zoo": ["config", "io", "checkpoint", "model_zoo"],
    "web": ["io", "export", "web"],
    "report": [
        *("io", "evaluation", "check", "inference.drawing", "report"),
    ],
    "serve": ["io", "inference", "_version", "serve"],
    "tracking": ["layers", "tracking"],
    "inference": [
        *("config", "layers", "io", "checkpoint", "modeling", "data.datasets", "model_zoo"),
        *("export", "tracking", "inference"),
    ],
}


def fits(name, prefix):
    return name == prefix or name.startswith(prefix + ".")


def rule_of(name):
    prefixes = [prefix for prefix in ALLOWED if fits(name, prefix)]
    return max(prefixes, key=len) if prefixes else None


def all_files():
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("file", all_files())
def test_imports_go_one_way(file):
    name = module_name(ROOT / file).partition(".")[2]
    rule = rule_of(name)
    imports = own_imports(ROOT / file)
    if rule is not None:
        wrong = [x for x in imports if not any(fits(x, allowed) for allowed in ALLOWED[rule])]
        assert wrong == []
    if file != "__init__.py":
        # The package itself stands above all: importing from it makes a circle.
        assert "" not in imports
    assert not any(x.split(".")[0] in ("train_net", "demo") for x in imports)


def test_the_reader_of_imports_sees_them():
    assert "layers" in own_imports(ROOT / "modeling" / "targets.py")
    assert "modeling.grid" in own_imports(ROOT / "modeling" / "heads" / "base.py")
    assert "modeling.criterion" in own_imports(ROOT / "modeling" / "meta_arch" / "solo.py")


def test_importing_modules_are_acyclic():
    graph = {}
    for file in all_files():
        name = module_name(ROOT / file).partition(".")[2]
        graph[name] = own_imports(ROOT / file) - {name}
    done, path = set(), []

    def visit(name):
        assert name not in path, f"circle: {[*path[path.index(name) :], name]}"
        if name in done or name not in graph:
            return
        path.append(name)
        for other in graph[name]:
            visit(other)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)


def test_modules_stay_small():
    """Design §7: 350 lines at most."""
    long = [file for file in all_files() if len((ROOT / file).read_text().splitlines()) > 350]
    assert long == []
