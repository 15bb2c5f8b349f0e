"""What ``install_detectron2.py`` changes in Detectron2 0.6: requirements, and one entry per fix.

Every fix states how often its text occurs; another number is an error, so that no fix is ever
skipped silently or applied twice.
"""

from __future__ import annotations

from typing import NamedTuple


class InstallError(Exception):
    """Detectron2 cannot be installed; the message is one line for the user."""


class Fix(NamedTuple):
    """One replacement of text in one file.

    Attributes:
        file: path below the sdist's top folder.
        old: text to replace, verbatim.
        new: text to put in its place; does not contain `old`.
        reason: why, in a few words.
        times: number of times that `old` occurs.
    """

    file: str
    old: str
    new: str
    reason: str
    times: int = 1


# What setup.py lists, without its upper bounds (iopath, black), without what only Caffe2 needed
# (future, pydot), and with OpenCV left to the user as upstream does.
REQUIREMENTS = (
    "Pillow>=7.1",
    "cloudpickle",
    "fvcore>=0.1.5",
    "hydra-core>=1.1",
    "iopath>=0.1.7",
    "matplotlib",
    "omegaconf>=2.1",
    "pycocotools>=2.0.2",
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "tqdm>4.29.0",
    "yacs>=0.1.8",
)

# Folders of the sdist that setup.py installs as packages under detectron2.projects.
PROJECTS = {
    "projects/PointRend/point_rend/": "detectron2/projects/point_rend/",
    "projects/DeepLab/deeplab/": "detectron2/projects/deeplab/",
    "projects/Panoptic-DeepLab/panoptic_deeplab/": "detectron2/projects/panoptic_deeplab/",
}

ALIAS = "NumPy 1.24 removed this alias"
NO_COMPILED = "there is no compiled detectron2._C"
SAFE = "files of others must not run code"
CPU_WORKERS = "several processes on CPU (gloo)"
AMP = "mixed precision on CPU (bfloat16) and without deprecated calls"

IMPORT_C = "\nfrom detectron2 import _C\n"
TRY_IMPORT_C = """
try:
    from detectron2 import _C
except ImportError:
    _C = None
"""

TORCHVISION_DEFORM_CONV = """\
# No compiled operators: torchvision's run on CPU and GPU, with gradients.
# It takes groups and deformable groups from the shapes of weight and offset.
def deform_conv(
    input,
    offset,
    weight,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    deformable_groups=1,
    im2col_step=64,
):
    return deform_conv2d(
        input, offset, weight, None, _pair(stride), _pair(padding), _pair(dilation)
    )


def modulated_deform_conv(
    input,
    offset,
    mask,
    weight,
    bias=None,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    deformable_groups=1,
):
    return deform_conv2d(
        input, offset, weight, bias, _pair(stride), _pair(padding), _pair(dilation), mask
    )


if _C is not None:
    deform_conv = _DeformConv.apply
    modulated_deform_conv = _ModulatedDeformConv.apply
"""

RESTRICTED_UNPICKLER = '''\
# Copyright (c) Facebook, Inc. and its affiliates.
import pickle

import cloudpickle

_SAFE_GLOBALS = {
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
    ("detectron2.structures.boxes", "BoxMode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    # The second spelling is that of NumPy 2.
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _SAFE_GLOBALS:
            raise pickle.UnpicklingError(f"refusing to unpickle {module}.{name}")
        return super().find_class(module, name)


def restricted_load(file):
    """Unpickle arrays and plain containers; anything else raises UnpicklingError."""
    return _RestrictedUnpickler(file, encoding="latin1").load()
'''

RETINANET_SIZES = """[
      [32, 40.31747359663594, 50.79683366298238],
      [64, 80.63494719327188, 101.59366732596476],
      [128, 161.26989438654377, 203.18733465192952],
      [256, 322.53978877308754, 406.37466930385904],
      [512, 645.0795775461751, 812.7493386077181],
    ]"""

IMPORT_LOAD = "from detectron2.utils.serialize import restricted_load\n"

DEFORM_CONV = "detectron2/layers/deform_conv.py"
CHECKPOINT = "detectron2/checkpoint/detection_checkpoint.py"
BUILD = "detectron2/data/build.py"
LAUNCH = "detectron2/engine/launch.py"
TRAIN_LOOP = "detectron2/engine/train_loop.py"
SEM_SEG = "detectron2/evaluation/sem_seg_evaluation.py"
MODEL_ZOO = "detectron2/model_zoo/model_zoo.py"
PASCAL = "detectron2/data/datasets/pascal_voc.py"
PASCAL_EVAL = "detectron2/evaluation/pascal_voc_evaluation.py"

FIXES = (
    # NumPy and Pillow.
    Fix(BUILD, "dtype=np.int\n", "dtype=int\n", ALIAS),
    Fix(BUILD, "dtype=np.int)", "dtype=int)", ALIAS),
    Fix(PASCAL, "dtype=np.str)", "dtype=str)", ALIAS),
    Fix(SEM_SEG, "dtype=np.int)", "dtype=int)", ALIAS, 2),
    Fix(SEM_SEG, "dtype=np.float)", "dtype=float)", ALIAS, 2),
    Fix(SEM_SEG, "astype(np.float)", "astype(float)", ALIAS, 3),
    Fix(PASCAL_EVAL, "astype(np.bool)", "astype(bool)", ALIAS, 2),
    Fix("detectron2/structures/masks.py", "np.bool)", "bool)", ALIAS, 3),
    Fix("detectron2/utils/visualizer.py", "np.bool)", "bool)", ALIAS, 3),
    Fix("detectron2/utils/video_visualizer.py", "np.bool)", "bool)", ALIAS),
    Fix(
        "detectron2/data/transforms/transform.py",
        "Image.LINEAR",
        "Image.BILINEAR",
        "Pillow 10 removed this alias",
    ),
    # Nothing compiled.
    Fix("detectron2/layers/roi_align_rotated.py", IMPORT_C, TRY_IMPORT_C, NO_COMPILED),
    Fix("detectron2/layers/rotated_boxes.py", IMPORT_C, TRY_IMPORT_C, NO_COMPILED),
    Fix(DEFORM_CONV, IMPORT_C, TRY_IMPORT_C, NO_COMPILED),
    Fix(
        DEFORM_CONV,
        "deform_conv = _DeformConv.apply\nmodulated_deform_conv = _ModulatedDeformConv.apply\n",
        TORCHVISION_DEFORM_CONV,
        NO_COMPILED,
    ),
    Fix(
        "detectron2/evaluation/coco_evaluation.py",
        "\nfrom detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
        "\ntry:\n    from detectron2.evaluation.fast_eval_api import COCOeval_opt\n"
        "except ImportError:\n    COCOeval_opt = COCOeval\n",
        NO_COMPILED,
    ),
    Fix(
        "detectron2/export/__init__.py",
        "\nfrom .api import *\n",
        "\ntry:\n    from .api import *\nexcept ImportError:\n    pass\n",
        "Caffe2 is gone; tracing does not need it",
    ),
    # Model zoo without setuptools.
    Fix(MODEL_ZOO, "import pkg_resources\n", "", "setuptools 81 removed pkg_resources"),
    Fix(
        MODEL_ZOO,
        'pkg_resources.resource_filename(\n        "detectron2.model_zoo", '
        'os.path.join("configs", config_path)\n    )',
        'os.path.join(os.path.dirname(__file__), "configs", config_path)',
        "setuptools 81 removed pkg_resources",
    ),
    # Several processes, and mixed precision, on CPU.
    Fix(
        LAUNCH,
        '    assert torch.cuda.is_available(), "cuda is not available. '
        'Please check your installation."\n',
        "    has_gpu = torch.cuda.is_available()\n",
        CPU_WORKERS,
    ),
    Fix(LAUNCH, 'backend="NCCL",', 'backend="NCCL" if has_gpu else "GLOO",', CPU_WORKERS),
    Fix(
        LAUNCH,
        "\n    assert num_gpus_per_machine <= torch.cuda.device_count()\n"
        "    torch.cuda.set_device(local_rank)\n",
        "\n    if has_gpu:\n"
        "        assert num_gpus_per_machine <= torch.cuda.device_count()\n"
        "        torch.cuda.set_device(local_rank)\n",
        CPU_WORKERS,
    ),
    Fix(
        "detectron2/engine/defaults.py",
        'if "device_ids" not in kwargs:',
        'if "device_ids" not in kwargs and next(model.parameters()).is_cuda:',
        CPU_WORKERS,
    ),
    Fix(
        TRAIN_LOOP,
        "            from torch.cuda.amp import GradScaler\n\n"
        "            grad_scaler = GradScaler()\n",
        "            # bfloat16 has the range of float32 and needs no scaling.\n"
        "            grad_scaler = torch.amp.GradScaler(\n"
        '                "cuda", enabled=next(model.parameters()).is_cuda\n'
        "            )\n",
        AMP,
    ),
    Fix(
        TRAIN_LOOP,
        "        assert torch.cuda.is_available(), "
        '"[AMPTrainer] CUDA is required for AMP training!"\n'
        "        from torch.cuda.amp import autocast\n",
        "        device = next(self.model.parameters()).device.type\n"
        '        dtype = torch.float16 if device == "cuda" else torch.bfloat16\n',
        AMP,
    ),
    Fix(TRAIN_LOOP, "with autocast():", "with torch.autocast(device, dtype=dtype):", AMP),
    # Safe loading.
    Fix(
        "detectron2/config/config.py",
        "allow_unsafe: bool = True",
        "allow_unsafe: bool = False",
        SAFE,
    ),
    Fix(
        "detectron2/config/config.py",
        "    # Note that the default value of allow_unsafe is changed to True\n",
        "",
        SAFE,
    ),
    Fix("detectron2/config/lazy.py", "yaml.unsafe_load(", "yaml.safe_load(", SAFE, 2),
    Fix(
        "detectron2/model_zoo/configs/Base-RetinaNet.yaml",
        '!!python/object/apply:eval ["[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] '
        'for x in [32, 64, 128, 256, 512 ]]"]',
        RETINANET_SIZES,
        "loads with safe YAML",
    ),
    Fix(
        "detectron2/utils/serialize.py",
        "# Copyright (c) Facebook, Inc. and its affiliates.\nimport cloudpickle\n",
        RESTRICTED_UNPICKLER,
        SAFE,
    ),
    Fix(BUILD, 'pickle.load(f, encoding="latin1")', "restricted_load(f)", SAFE),
    Fix(BUILD, "import pickle\n", "", SAFE),
    Fix(BUILD, "log_first_n\n\nfrom .catalog", f"log_first_n\n{IMPORT_LOAD}\nfrom .catalog", SAFE),
    Fix(CHECKPOINT, 'pickle.load(f, encoding="latin1")', "restricted_load(f)", SAFE),
    Fix(CHECKPOINT, "import pickle\n", "", SAFE),
    Fix(CHECKPOINT, "PathManager\n\nfrom .c2", f"PathManager\n{IMPORT_LOAD}\nfrom .c2", SAFE),
    Fix(CHECKPOINT, "torch.load(f)", "torch.load(f, weights_only=True)", f"{SAFE} (torch < 2.6)"),
    Fix(
        CHECKPOINT,
        "loaded = super()._load_file(filename)  # load native pth checkpoint\n",
        'with PathManager.open(filename, "rb") as f:\n'
        '            loaded = torch.load(f, map_location="cpu", weights_only=True)\n',
        f"{SAFE} (torch < 2.6)",
    ),
    # Warnings of current PyTorch.
    Fix(
        "detectron2/utils/comm.py",
        "    storage = torch.ByteStorage.from_buffer(buffer)\n"
        "    tensor = torch.ByteTensor(storage).to(device=device)\n",
        "    tensor = torch.frombuffer(bytearray(buffer), dtype=torch.uint8).to(device=device)\n",
        "typed storages are deprecated",
    ),
    Fix(
        "detectron2/modeling/anchor_generator.py",
        "torch.meshgrid(shifts_y, shifts_x)",
        'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
        "calling it without indexing is deprecated",
    ),
)
