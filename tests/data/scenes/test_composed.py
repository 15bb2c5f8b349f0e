"""Training images that are composed when they are drawn."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from builders import tiny_config
from detectron2.data import DatasetCatalog, MetadataCatalog

from solo_d2.cli.train import main
from solo_d2.data.build import build_train_loader
from solo_d2.data.classes import align_classes
from solo_d2.data.dataset_mapper import PanopticDatasetMapper, SOLODatasetMapper
from solo_d2.data.matting_mapper import MattingDatasetMapper
from solo_d2.data.scenes import composed
from solo_d2.data.scenes.build import build
from solo_d2.data.scenes.compose import Matte, Scene
from solo_d2.data.scenes.cutouts import sofi_options
from solo_d2.data.scenes.panoptic_writer import make_segments
from solo_d2.data.scenes.rgba import RGBASource
from solo_d2.data.scenes.shapes import ShapesSource
from solo_d2.data.scenes.stamps import StampsSource
from solo_d2.data.sources import register_folder
from solo_d2.io.image import read_image, write_image
from solo_d2.io.panoptic_png import semantic_labels
from solo_d2.io.segmentation import decode_mask

SPLITS = ("train", "val")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("composed") / "shapes"
    build(ShapesSource((64, 80)), folder, train=4, val=2, workers=1, progress=False)
    return folder


@pytest.fixture
def names(shapes):
    """The registered datasets; gone after the test."""
    found = register_folder("composed", shapes, SPLITS)
    yield found
    forget(found)


def forget(names):
    for name in names.values():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def config(names, *overrides):
    return tiny_config(
        *("DATASETS.TRAIN", (names["train"],), "DATASETS.TEST", (names["val"],)),
        *("MODEL.SOLO.NUM_CLASSES", 5, "SEED", 3, "DATALOADER.NUM_WORKERS", 0),
        *("INPUT.MIN_SIZE_TRAIN", (64,), "SOLVER.IMS_PER_BATCH", 2, *overrides),
    )  # fmt: skip


def scene():
    """Two objects that meet, one of them soft, over two regions and a part without a label."""
    soft, hard = np.full((4, 6), 0.6, np.float32), np.ones((3, 3), np.float32)
    stuff = np.repeat(np.array([[1, 2, 0, 2]], np.uint8), 8, 0).repeat(3, 1)
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return Scene(image, np.array([1, 0]), [Matte(soft, 1, 0), Matte(hard, 7, 4)], stuff)


@pytest.fixture
def record(monkeypatch):
    monkeypatch.setattr(composed, "composer", lambda root: lambda rng: scene())
    return composed.ComposedScenes("/folder", 3)[1]


def test_the_composer_draws_what_was_written(shapes):
    drawn = composed.composer(str(shapes))(np.random.default_rng([0, 0, 2]))
    content = json.loads((shapes / "annotations/train.json").read_text())
    image = read_image(shapes / "train/000003.jpg", "RGB")
    assert np.abs(image.astype(int) - drawn.image).mean() < 15  # JPEG; two scenes differ by 60
    found = [x for x in content["annotations"] if x["image_id"] == 3]
    assert [x["category_id"] - 1 for x in found] == drawn.categories.tolist()
    for annotation, mask in zip(found, drawn.masks, strict=True):
        assert np.array_equal(decode_mask(annotation["segmentation"], mask.shape), mask)


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_a_scene_becomes_what_a_model_learns_from(record, image_format):
    kwargs = {"is_train": True, "augmentations": [], "image_format": image_format,
              "use_instance_mask": True, "instance_mask_format": "bitmask"}  # fmt: skip
    made, expected = SOLODatasetMapper(**kwargs)(record), scene()
    step = 1 if image_format == "RGB" else -1
    assert np.array_equal(made["image"].permute(1, 2, 0), expected.image[..., ::step])
    assert made["instances"].gt_classes.tolist() == [1, 0]
    assert np.array_equal(made["instances"].gt_masks.tensor, expected.masks)
    assert (made["height"], made["width"], made["image_id"]) == (8, 12, 1)
    mattes = MattingDatasetMapper(**kwargs)(record)["instances"].gt_mattes
    assert mattes[0, 1, 2] == 153
    assert mattes[1].sum() == 9 * 255
    labels = PanopticDatasetMapper(ignore_value=255, **kwargs)(record)["sem_seg"]
    ids, segments = make_segments(list(expected.masks), [1, 2], expected.stuff, 3)
    for segment in segments:
        segment["isthing"] = segment["category_id"] < 3
        segment["category_id"] -= 0 if segment["isthing"] else 2
    assert np.array_equal(labels, semantic_labels(ids, segments, "written", 255))


def images(loader, count):
    return [x["image"] for _ in range(count) for x in next(loader)]


def test_no_two_images_are_alike_and_a_resumed_stream_goes_on(names):
    cfg = config(names)
    mapper = SOLODatasetMapper(cfg, is_train=True)
    loader = build_train_loader(cfg, mapper)
    first = images(loader, 3)
    state = loader.state_dict()
    second = images(loader, 2)  # the second pass over "four" images
    assert len({x.numpy().tobytes() for x in first + second}) == 10
    again = build_train_loader(config(names, "DATALOADER.NUM_WORKERS", 1), mapper)
    assert again.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(images(again, 2), second, strict=True))
    again.close()


def test_classes_of_another_order_are_matched(names, record):
    classes = MetadataCatalog.get(names["train"]).thing_classes
    align_classes(names["train"], classes[::-1])
    renumbered = DatasetCatalog.get(names["train"])[0]
    made = composed.compose_record({**record, **renumbered}, "RGB")
    assert [x["category_id"] for x in made["annotations"]] == [3, 4]
    with pytest.raises(ValueError, match="cannot be matched by name"):
        align_classes(names["train"], classes[:3])


def test_trains_from_the_command_line(shapes, tmp_path, capsys):
    cfg = config({"train": "none", "val": "none"}, "DATASETS.TRAIN", (), "DATASETS.TEST", ())
    (tmp_path / "config.yaml").write_text(cfg.dump())
    arguments = ["--config-file", f"{tmp_path}/config.yaml", "--composed", str(shapes)]
    options = ["SOLVER.MAX_ITER", "1", "OUTPUT_DIR", f"{tmp_path}/out", "INPUT.MIN_SIZE_TEST", "64"]
    try:
        assert main([*arguments, *options], prog="train_net.py") == 0, capsys.readouterr().err
    finally:
        forget({"train": "composed_train", "val": "composed_val"})
    assert (tmp_path / "out/model_final.pth").is_file()
    assert (tmp_path / "out/inference/composed_val/coco_instances_results.json").is_file()


@pytest.fixture
def cutouts(tmp_path):
    """A built dataset of an opaque square, and the folder of its cut-outs."""
    write_image(tmp_path / "cutouts/a.png", np.full((40, 40, 4), 255, np.uint8))
    write_image(tmp_path / "papers/b.png", np.full((80, 120, 3), 90, np.uint8))
    source = RGBASource(tmp_path / "cutouts", tmp_path / "papers", options=sofi_options(64, 96))
    build(source, tmp_path / "built", train=2, val=1, workers=1, progress=False)
    return tmp_path / "built", tmp_path / "cutouts"


def test_own_cutouts_are_found_again(cutouts):
    names = register_folder("composed_matting", cutouts[0], SPLITS)
    try:
        made = composed.compose_record(DatasetCatalog.get(names["train"])[0], "RGB")
        assert MetadataCatalog.get(names["val"]).evaluator_type == "coco_matting"
    finally:
        forget(names)
    assert made["annotations"][0]["category_id"] == 0


def test_stamps_that_cannot_be_had_are_an_error_of_files(tmp_path):
    """Their options come back from the manifest, and loading looks where they were built."""
    source = StampsSource(sofi_options(64, 96), one_class=True, extracted=tmp_path / "unpacked")
    request = json.loads(json.dumps(source.request({"train": 1, "val": 1}, 0)))
    manifest = {"request": request, "places": source.places()}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    restored = StampsSource.restore(request, source.places())
    assert restored.options == source.options
    assert restored.one_class
    with pytest.raises(OSError, match=f"{tmp_path}: .*is this tuxpaint-stamps-default") as error:
        composed.composer(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_composer_without_cutouts_is_one_line(cutouts, tmp_path):
    built, folder = cutouts
    with pytest.raises(ValueError, match=r"there is no dataset of scenes in .*; build one with"):
        register_folder("composed", tmp_path / "nothing", SPLITS)
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match=r"scenes of .*built cannot be composed: .*cutouts") as e:
        composed.composer(str(built))
    assert "\n" not in str(e.value)
    write_image(folder / "other.png", np.full((40, 40, 4), 255, np.uint8))
    with pytest.raises(ValueError, match="its cut-outs, or the version, have changed"):
        composed.composer(str(built))
    manifest = json.loads((built / "manifest.json").read_text())
    del manifest["places"]
    (built / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="does not say where its cut-outs lie"):
        composed.composer(str(built))
