"""What others build on: names, open tables, the README's lines, and what functions are given."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import SOFT, noise_input, tiny_config, tiny_model
from detectron2.config import configurable
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from stub_predictor import StubPredictor, film

import solo_d2
from solo_d2 import SOLOPredictor, layers, load_config, model_zoo
from solo_d2.evaluation import EVALUATORS
from solo_d2.inference.prediction import Prediction
from solo_d2.layers import MASK_NMS, matrix_nms
from solo_d2.modeling import MASK_LOSSES, SOLO_HEAD_REGISTRY, SOLOHead
from solo_d2.modeling.meta_arch.soft_solo import MATTE_LOSSES
from solo_d2.modeling.postprocessing import nms_parameters
from solo_d2.testing import check_head, check_mask_loss, check_nms

ROOT = Path(solo_d2.__file__).parents[1]

# ------------------------------------------------------------------ names

# Every public name of the package's face: what is added or taken away is a change for users.
PUBLIC = {
    "solo_d2": """PanopticSOLO SOLO SOLOPredictor SOLO_HEAD_REGISTRY SoftSOLO add_solo_config
        compile load_config model_zoo""",
    "solo_d2.checkpoint": """CheckpointInfo InputConvention Require SOLOCheckpointer
        convert_state_dict load_checkpoint load_state_dict load_weights read_info
        save_checkpoint""",
    "solo_d2.data": "DATA_SOURCES DataSource JSON_FORMATS",
    "solo_d2.engine": """SOLOTrainer argument_parser check_data launch name_classes parse_arguments
        plan_schedule setup use_data""",
    "solo_d2.export": """Accuracy DropLimit ExportReport ExportedModel FORMATS export_model
        exported_config is_exported load_exported open_exported""",
    "solo_d2.inference": "InferenceRun ModelCard SOLOPredictor show_in_window",
    "solo_d2.serve": "Limits Options make_app",
    "solo_d2.tracking": "Tracker",
    "solo_d2.model_zoo": """PublishedCheckpoint get get_config get_config_file list_models
        load_config local_weights push_folder""",
    "solo_d2.web": "bundle",
    "solo_d2.testing": """check_head check_mask_loss check_nms tiny_config tiny_dataset
        tiny_results""",
    "solo_d2.evaluation": """COCOInstanceEvaluator CityscapesInstanceEvaluator EVALUATORS
        LVISInstanceEvaluator MattingEvaluator PanopticEvaluator SOFIEvaluator SemanticEvaluator
        build_evaluator""",
    "solo_d2.layers": """DeformConv2d EncodedMasks MASK_NMS align_to_grid append_coords binarize
        binary_mask_loss capturing category_focal_loss deform_conv dense_masks dice_bce_loss
        dice_loss downsample_masks dynamic_conv encode_masks encoded_matrix_nms exporting fast_nms
        focal_mask_loss hard_nms in_one_type mae_loss mask_areas mask_coverage mask_crops
        mask_occupancy mask_profiles masks_to_boxes matrix_nms matte_loss
        pairwise_intersection pairwise_mask_iou point_nms profiles_to_boxes profiles_to_centroids
        quality_focal_loss
        rank_sort_loss resize_bilinear sample_points soft_nms""",
    "solo_d2.modeling": """DecoupledDynamicSOLOHead DecoupledLightSOLOHead DecoupledSOLOHead
        DynamicSOLOHead GridSpec MASK_LOSSES PanopticSOLO SOLO SOLOHead SOLOSemSegHead
        SOLO_HEAD_REGISTRY SoftDynamicSOLOHead SoftSOLO VanillaSOLOHead
        build_deform_resnet_backbone build_deform_resnet_fpn_backbone build_merged_resnet_backbone
        build_solo_head build_timm_fpn_backbone compile""",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_these(module):
    loaded = importlib.import_module(module)
    names = loaded.__all__
    assert sorted(names) == sorted(PUBLIC[module].split())
    assert [name for name in names if getattr(loaded, name, None) is None] == []


@pytest.mark.parametrize(
    "line",
    [
        "from solo_d2 import add_solo_config, SOLOPredictor, load_config, SoftSOLO, PanopticSOLO",
        "import solo_d2; solo_d2.load_config, solo_d2.SoftSOLO, solo_d2.PanopticSOLO",
        "import solo_d2; solo_d2.model_zoo.get_config_file, solo_d2.model_zoo.get_config",
        "import solo_d2; solo_d2.model_zoo.get",
        "from solo_d2.layers import matrix_nms, fast_nms, soft_nms, hard_nms, point_nms, dice_loss",
        "from solo_d2.layers import MASK_NMS",
        "from solo_d2.modeling import SOLO_HEAD_REGISTRY, MASK_LOSSES",
        "from solo_d2.checkpoint import convert_state_dict, load_state_dict",
        "from solo_d2.evaluation import SOFIEvaluator, MattingEvaluator, PanopticEvaluator",
        "from solo_d2.engine import SOLOTrainer",
        "from solo_d2.export import export_model",
    ],
)
def test_lines_of_the_design_run(line):
    exec(line, {})


# ------------------------------------------------------------------ open tables


def keep_all(masks, labels, scores):
    """An NMS that lowers every score a little, to be told from no NMS at all."""
    return scores * 0.5


def half_threshold(masks, labels, scores, *, threshold):
    return scores * (scores > threshold)


@pytest.mark.parametrize(
    ("function", "options"), [(keep_all, ()), (half_threshold, ("threshold",))], ids=["0", "1"]
)
def test_an_nms_of_ones_own_is_chosen_by_name(monkeypatch, function, options):
    monkeypatch.setitem(MASK_NMS, "mine", function)
    assert tuple(nms_parameters("mine")) == options
    few = ("MODEL.SOLO.SCORE_THRESH_TEST", 0.0, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0)
    masks = torch.ones(2, 3, 3, dtype=torch.bool)
    labels, scores = torch.tensor([0, 0]), torch.tensor([0.9, 0.4])
    model = tiny_model(*few, "MODEL.SOLO.NMS_TYPE", "mine", "MODEL.SOLO.NMS_THRESH_TEST", 0.5)
    expected = {0: [0.45, 0.2], 1: [0.9, 0.0]}[len(options)]
    assert model.settings.nms(masks, labels, scores).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [("matrix", {"kernel", "sigma"}), ("soft", {"sigma"}), ("fast", {"threshold"})],
)
def test_options_of_an_nms_are_its_parameters(name, options):
    assert set(nms_parameters(name)) == options


def test_a_mask_loss_of_ones_own_is_chosen_by_name(monkeypatch):
    monkeypatch.setitem(
        MASK_LOSSES, "squared", lambda p, q: (p - q.to(p.dtype)).pow(2).mean((1, 2))
    )
    monkeypatch.setattr("solo_d2.modeling.meta_arch.soft_solo.MATTE_LOSSES", {"squared"})
    batch = [noise_input((64, 96), [(4, 4, 60, 60)], [0])]
    for more in ((), SOFT):
        losses = tiny_model(*more, "MODEL.SOLO.MASK_LOSS", "squared")(batch)
        assert 0 < losses["loss_mask"].item() < 3
        assert losses["loss_mask"].requires_grad
    assert "squared" not in MATTE_LOSSES
    with pytest.raises(ValueError, match=r"MASK_LOSS must be one of.*got 'cubed'"):
        tiny_model("MODEL.SOLO.MASK_LOSS", "cubed")


# ------------------------------------------------------------------ the README


def python_blocks(file):
    return re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(), re.S)


def readme_blocks():
    return [block for block in python_blocks("README.md") if "cfg" in block]


def write_cups(folder):
    """A COCO file of two images and two classes at the README's place."""
    pictures = folder / "cups" / "images"
    pictures.mkdir(parents=True)
    images, annotations = [], []
    for k in (1, 2):
        pixels = np.random.default_rng(k).integers(0, 255, (50, 70, 3), np.uint8)
        Image.fromarray(pixels).save(pictures / f"{k}.png")
        images.append({"id": k, "file_name": f"{k}.png", "height": 50, "width": 70})
        square = [5, 12, 23, 12, 23, 30, 5, 30]
        annotations.append(
            {"id": k, "image_id": k, "category_id": k, "segmentation": [square], "area": 324,
             "bbox": [5, 12, 18, 18], "iscrowd": 0}
        )  # fmt: skip
    categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "fork"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "cups" / "train.json").write_text(json.dumps(content))


@pytest.fixture
def cups(tmp_path, monkeypatch):
    write_cups(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        with contextlib.suppress(KeyError):
            catalog.remove("cups_train")


def test_the_readme_lines_train_with_detectron2s_trainer(cups, tmp_path):
    configure, train = readme_blocks()
    space = {}
    exec(configure, space)
    # No GPU, no download, one small step.
    space["cfg"].merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "SOLVER.MAX_ITER", 1,
         "SOLVER.IMS_PER_BATCH", 1, "DATALOADER.NUM_WORKERS", 0,
         "INPUT.MIN_SIZE_TRAIN", (64,), "MODEL.SOLO.NUM_CONVS", 1,
         "MODEL.SOLO.CONV_DIM", 32, "OUTPUT_DIR", str(tmp_path)]
    )  # fmt: skip
    exec(train, space)
    assert space["trainer"].iter == 1
    assert (tmp_path / "model_final.pth").is_file()


def predictor_of(name, **kwargs):
    """Stands for `SOLOPredictor`, without weights: the name must be one of the zoo's."""
    assert load_config(name).MODEL.META_ARCHITECTURE == "SOLO"
    return SOLOPredictor(tiny_config(), model=tiny_model().eval())


def model_of(name, trained=False):
    """Stands for `model_zoo.get`, without weights."""
    cfg = model_zoo.get_config(name, trained=trained)
    assert cfg.MODEL.META_ARCHITECTURE == "SOLO"
    return tiny_model().eval()


def with_photo(monkeypatch):
    Image.fromarray(np.zeros((50, 70, 3), np.uint8)).save("photo.jpg")
    monkeypatch.setattr(solo_d2, "SOLOPredictor", predictor_of)
    monkeypatch.setattr(model_zoo, "get", model_of)
    return {}


def with_pictures(monkeypatch):
    write_cups(Path())
    Path("images").mkdir()
    Path("cups/images").rename("images/train")
    Path("cups/train.json").rename("train.json")
    return {}


def with_matting_model(monkeypatch):
    folder = Path("output/matting/soft")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(tiny_config(*SOFT).dump())
    torch.save({"model": tiny_model(*SOFT).state_dict()}, folder / "model_final.pth")
    Image.fromarray(np.zeros((50, 70, 3), np.uint8)).save("image.jpg")
    return {}


def with_training(monkeypatch):
    folder = Path("output/mine")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(tiny_config().dump())
    torch.save({"model": tiny_model().state_dict()}, folder / "model_final.pth")
    return {}


def with_model(monkeypatch):
    cfg = tiny_config("TEST.AUG.MIN_SIZES", (48, 64), "INPUT.MIN_SIZE_TEST", 48)
    return {"cfg": cfg, "model": tiny_model().eval(), "image": noise_input((50, 70))["image"]}


def with_film(monkeypatch):
    stub = StubPredictor(count=1)
    film(Path("film.mp4"), 3)

    def predictor(name, **options):
        assert options == {"confidence_threshold": 0.3, "kernels": True}
        return lambda image: Prediction(stub(image), image, stub.metadata)

    monkeypatch.setattr(solo_d2, "SOLOPredictor", predictor)
    return {}


# What each example of the documents finds around it, and what is so when it has run.
EXAMPLES = {
    ("README.md", 0): (with_photo, "len(instances) >= 0 and not model.training"),
    ("MODEL_ZOO.md", 0): (with_photo, "predictor is not None"),
    ("docs/datasets.md", 0): (with_pictures, "list(classes) == ['cup', 'fork']"),
    ("docs/models.md", 0): (with_photo, "len(instances) >= 0"),
    ("docs/matting.md", 0): (with_matting_model, "instances.pred_mattes.shape[1:] == (50, 70)"),
    ("docs/model_folders.md", 0): (
        with_training,
        "predictor.cfg.MODEL.SOLO.NUM_CLASSES == 3 and card.dataset == 'cups'",
    ),
    ("docs/video.md", 0): (with_film, "detections.tracker_id.tolist() == [1]"),
    ("docs/multi_scale.md", 0): (with_model, "outputs[0]['instances'].image_size == (50, 70)"),
}
EXTENDING = "docs/extending.md"
ELSEWHERE = {
    *((EXTENDING, i) for i in range(5)),  # below
    ("README.md", 1),  # above
    ("README.md", 2),
    ("docs/model_folders.md", 1),  # tests/model_zoo/test_model_folders.py
    ("docs/browser.md", 0),  # tests/web/test_bundle.py
    ("docs/export.md", 0),  # tests/export/test_traced.py
    ("configs/README.md", 0),  # tests/test_yaml_configs.py
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example[0])
def test_examples_of_the_documents_run(example, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    prepare, holds = EXAMPLES[example]
    space = prepare(monkeypatch)
    exec(python_blocks(example[0])[example[1]], space)
    assert eval(holds, space)
    for catalog in (DatasetCatalog, MetadataCatalog):
        with contextlib.suppress(KeyError):
            catalog.remove("mine_train")


@pytest.fixture
def tables():
    """Leave the open tables as they were."""
    opened = (MASK_NMS, MASK_LOSSES, EVALUATORS, SOLO_HEAD_REGISTRY._obj_map)
    before = [dict(table) for table in opened]
    yield
    for table, kept in zip(opened, before, strict=True):
        table.clear()
        table.update(kept)


def test_what_the_page_on_extending_adds_keeps_the_contracts(tables):
    space = {}
    for block in python_blocks(EXTENDING):
        exec(block, space)
    space["test_my_head"]()
    check_nms(MASK_NMS["first_come"])
    assert nms_parameters("first_come") == ["threshold"]
    check_mask_loss(MASK_LOSSES["l2"])
    evaluator = EVALUATORS["count"][0]("any")
    evaluator.process([{}, {}], [{"instances": "abc"}, {"instances": "d"}])
    assert evaluator.evaluate() == {"count": {"mean": 2.0}}


@pytest.mark.parametrize("kind", ["expanded", "stored"])
def test_a_head_whose_masks_are_not_its_own_is_told(tables, kind):
    class SharingHead(SOLOHead):
        uses = ()
        one_mask_source = True

        @configurable
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.mask_strides = (4,) * self.grid.num_levels

        def mask_inputs(self, features, levels):
            maps = features["p2"].mean(1).sigmoid()
            return [x.expand(self.grid.num_cells, -1, -1).contiguous() for x in maps]

        def level_probs(self, inputs, image, level, cells, size):
            shared, count = inputs[image], len(cells)
            return shared[:1].expand(count, -1, -1) if kind == "expanded" else shared[:count]

    SOLO_HEAD_REGISTRY.register(SharingHead)
    with pytest.raises(AssertionError, match="inference overwrites them"):
        check_head("SharingHead")


def test_every_example_is_tried():
    files = ["README.md", "MODEL_ZOO.md", "configs/README.md"]
    files += [path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")]
    found = {(file, i) for file in files for i in range(len(python_blocks(file)))}
    assert found == set(EXAMPLES) | ELSEWHERE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.SOLO.IN_FEATURES", ["p2", "p7"]),
        ("MODEL.SOLO.IN_FEATURES", []),
        ("MODEL.SOLO.MASK_FEATURE.IN_FEATURES", ["res2"]),
    ],
)
def test_missing_features_are_told_with_the_remedy(key, value):
    with pytest.raises(ValueError) as error:
        tiny_model(key, value)
    text = str(error.value)
    assert "\n" not in text
    for part in (key, str(value), "'p2'", "build_resnet_fpn_backbone", "RESNETS.OUT_FEATURES"):
        assert part in text


def test_a_backbone_without_a_pyramid_is_told_with_the_remedy():
    with pytest.raises(ValueError, match=r"yields \['res4'\].*build_resnet_fpn_backbone"):
        tiny_model("MODEL.BACKBONE.NAME", "build_resnet_backbone",
                   "MODEL.RESNETS.OUT_FEATURES", ["res4"])  # fmt: skip


def test_load_config_is_the_zoos():
    cfg = solo_d2.load_config("COCO-InstanceSegmentation/solov2_R_50_FPN_3x.yaml")
    assert cfg.MODEL.META_ARCHITECTURE == "SOLO"
    assert tiny_config().keys() == cfg.keys()


# ------------------------------------------------------------------ what functions are given

MASKS = torch.ones(3, 4, 5, dtype=torch.bool)
SOFT_MASKS = torch.rand(3, 4, 5)
LABELS, SCORES = torch.tensor([0, 1, 0]), torch.tensor([0.5, 0.9, 0.7])
NAN, INF = float("nan"), float("inf")
FEATURE, KERNELS = torch.rand(2, 4, 5), torch.rand(3, 2)

INPUTS = [
    # function, arguments, what is said
    *(
        (name, arguments, said)
        for name in ("matrix_nms", "fast_nms", "soft_nms", "hard_nms")
        for arguments, said in [
            ((MASKS.numpy(), LABELS, SCORES), r"masks \(K, H, W\), got ndarray; torch.from_numpy"),
            ((MASKS, LABELS.numpy(), SCORES), r"labels \(K\), got ndarray"),
            ((MASKS, [0, 1, 0], SCORES), "got list"),
            ((SOFT_MASKS, LABELS, SCORES), "got torch.float32 .*threshold soft masks first"),
            ((MASKS.byte(), LABELS, SCORES), "boolean masks.*got torch.uint8"),
            ((MASKS[0], LABELS, SCORES), r"of shape \(4, 5\)"),
            ((MASKS[None], LABELS, SCORES), r"of shape \(1, 3, 4, 5\)"),
            ((MASKS, LABELS[:2], SCORES), r"sizes that fit .*got \(3, 4, 5\), \(2,\), \(3,\)"),
            ((MASKS, LABELS, SCORES[:1]), "sizes that fit"),
            ((MASKS[:0], LABELS, SCORES), "sizes that fit"),
            ((MASKS, LABELS, SCORES[:, None]), r"scores \(K\), got .*\(3, 1\)"),
            ((MASKS, LABELS, LABELS), "floating scores.*got torch.int64.*float"),
            ((MASKS, LABELS, torch.tensor([0.5, NAN, 0.1])), "finite scores, got nan at index 1"),
            ((MASKS, LABELS, torch.tensor([0.5, 0.1, INF])), "finite scores, got inf at index 2"),
            ((MASKS, LABELS, torch.tensor([0.5, INF, -INF])), "finite scores, got inf at index 1"),
            ((MASKS, LABELS.to("meta"), SCORES), "on one device, got masks on cpu, labels on meta"),
        ]
    ),
    ("point_nms", (SCORES,), r"scores \(N, C, S, T\)"),
    ("point_nms", (np.zeros((1, 1, 2, 2)),), "got ndarray"),
    ("pairwise_mask_iou", (SOFT_MASKS,), "threshold soft masks"),
    ("pairwise_mask_iou", (MASKS, LABELS[:2]), "sizes that fit"),
    ("pairwise_intersection", (MASKS.numpy(),), "got ndarray"),
    ("pairwise_intersection", (MASKS, torch.zeros(3, 1)), r"labels \(K\)"),
    ("mask_profiles", (MASKS.long(),), "boolean masks"),
    ("mask_areas", (MASKS.numpy(),), "got ndarray"),
    ("mask_occupancy", (SOFT_MASKS,), "threshold soft masks"),
    ("masks_to_boxes", (MASKS[0],), r"\(4, 5\)"),
    ("downsample_masks", (SOFT_MASKS, 2), "threshold soft masks"),
    ("mask_coverage", (SOFT_MASKS, 2), "threshold soft masks"),
    ("binarize", (MASKS, 0.5), "floating probs"),
    ("binarize", (SOFT_MASKS.numpy(), 0.5), "got ndarray"),
    ("encode_masks", (MASKS.numpy(),), "got ndarray"),
    ("encode_masks", (SOFT_MASKS,), "threshold soft masks"),
    ("encode_masks", (MASKS.int(),), "boolean masks.*got torch.int32"),
    ("profiles_to_boxes", (torch.ones(2, 3), torch.ones(3, 3)), "sizes that fit"),
    ("profiles_to_centroids", (torch.ones(2, 3), torch.ones(2, 3)), "integer rows"),
    ("dice_loss", (SOFT_MASKS.numpy(), MASKS), "got ndarray"),
    ("dice_loss", (MASKS, MASKS), "floating probs"),
    ("dice_loss", (SOFT_MASKS, MASKS.int()), r"boolean or in \[0, 1\], got torch.int32"),
    ("dice_loss", (SOFT_MASKS, MASKS[:2]), "sizes that fit"),
    ("dice_loss", (SOFT_MASKS, MASKS[..., :2]), "masks of one shape"),
    ("mae_loss", (SOFT_MASKS, MASKS.long()), "boolean or in"),
    ("matte_loss", (SOFT_MASKS, None), "got NoneType"),
    ("binary_mask_loss", (SOFT_MASKS, MASKS.int()), r"boolean or in \[0, 1\]"),
    ("focal_mask_loss", (SOFT_MASKS, SOFT_MASKS), "boolean targets"),
    ("focal_mask_loss", (SOFT_MASKS, MASKS.numpy()), "got ndarray"),
    ("dice_bce_loss", (SOFT_MASKS, MASKS.long()), "boolean or in"),
    ("sample_points", (MASKS, MASKS, 4), "floating probs"),
    ("sample_points", (SOFT_MASKS, MASKS[:2], 4), "sizes that fit"),
    ("rank_sort_loss", (SCORES, LABELS[:2], SCORES), "sizes that fit"),
    ("rank_sort_loss", (SCORES, SCORES, SCORES), "integer positives"),
    ("category_focal_loss", (torch.rand(1, 2, 3, 3), torch.zeros(1, 9), 0.25, 2.0), "integer"),
    (
        "category_focal_loss",
        (torch.rand(1, 2, 3, 3), torch.zeros(1, 8, dtype=torch.int64), 0.25, 2.0),
        "each of the 9 cells of an image, got 8",
    ),
    ("append_coords", (torch.rand(2, 4, 5),), r"x \(N, C, H, W\), got"),
    ("append_coords", (torch.zeros(1, 2, 4, 5).int(),), "floating x"),
    ("append_coords", (torch.rand(1, 2, 4, 5), "xz"), "got 'xz'"),
    ("align_to_grid", (torch.rand(2, 4, 5), 3), r"x \(N, C, H, W\)"),
    ("resize_bilinear", (np.zeros((1, 1, 2, 2)), (4, 4)), "got ndarray"),
    ("dynamic_conv", (FEATURE, KERNELS[:, :1]), "kernels of 2 weights .*got 1"),
    ("dynamic_conv", (FEATURE, KERNELS, 3), "kernels of 18 weights .*got 2"),
    ("dynamic_conv", (FEATURE, KERNELS, 2), "odd kernel size"),
    ("dynamic_conv", (FEATURE, KERNELS, 1, SCORES[:2]), "sizes that fit"),
    ("dynamic_conv", (FEATURE[None], KERNELS), r"feature \(E, H, W\)"),
]


@pytest.mark.parametrize(
    ("name", "arguments", "said"), INPUTS, ids=[f"{x[0]}-{x[2][:25]}" for x in INPUTS]
)
def test_what_a_function_cannot_use_is_a_line(name, arguments, said):
    with pytest.raises(ValueError, match=said) as error:
        getattr(layers, name)(*arguments)
    assert "\n" not in str(error.value)
    inner = {"matte_loss": "mae_loss", "masks_to_boxes": "mask_profiles"}.get(name, name)
    assert str(error.value).startswith(f"{inner} expects")


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("matrix_nms", "sigma", 0),
        ("matrix_nms", "sigma", NAN),
        ("matrix_nms", "kernel", "gauss"),
        ("soft_nms", "sigma", -1),
        ("fast_nms", "threshold", 1.5),
        ("fast_nms", "threshold", NAN),
        ("hard_nms", "threshold", -0.1),
    ],
)
def test_options_out_of_range_are_a_line(name, option, value):
    with pytest.raises(ValueError, match=f"{name} expects .*{option}"):
        getattr(layers, name)(MASKS, LABELS, SCORES, **{option: value})


@pytest.mark.parametrize("scores", [[6e4, 6e4, 1.0], [0.0, 0.0, 0.0], [1e-8, 1.0, 0.5]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_scores_of_every_type_are_taken(scores, dtype):
    given = torch.tensor(scores, dtype=dtype)
    found = matrix_nms(torch.eye(3, dtype=torch.bool)[:, None], LABELS, given)
    assert torch.equal(found, given)  # nothing overlaps


@pytest.mark.parametrize("labels", [LABELS, LABELS.int(), LABELS.float(), LABELS.bool()], ids=str)
def test_labels_of_every_real_type_are_taken(labels):
    expected = matrix_nms(MASKS, LABELS, SCORES)
    assert torch.equal(matrix_nms(MASKS, labels, SCORES), expected)
