"""Predictions in shards: every image exactly once, whatever kills a run, and lines for the rest."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import pickle
import signal
import tarfile
from collections import deque

import numpy as np
import pytest
import torch
from builders import tiny_config
from detectron2.modeling import build_model
from PIL import Image
from stub_predictor import StubPredictor, demo, in_a_child, picture

from solo_d2.cli import predict, sharding
from solo_d2.inference.ray_driver import ATTEMPTS, reason, run_shards
from solo_d2.inference.shard_worker import ShardWorker
from solo_d2.inference.shards import ARCHIVE_IDS, Record, ShardFolder, part_of, plan_shards
from solo_d2.io.image_sources import Archive, SourceError


@pytest.fixture
def images(tmp_path):
    """Seven images, of which the file 3.png is none."""
    for k in range(7):
        picture(tmp_path / "in" / f"{k}.png", (40, 50), seed=k)
    (tmp_path / "in" / "3.png").write_bytes(b"no image")
    return tmp_path / "in"


def results_of(root):
    """Entries of all shards."""
    return [
        x for file in sorted((root / "results").iterdir()) for x in json.loads(file.read_text())
    ]


def bad_rows(root):
    with (root / "bad.csv").open() as file:
        return list(csv.DictReader(file))


def folder_of(root, shards, kind="coco", **settings):
    folder = ShardFolder(root, kind)
    folder.open(shards, settings)
    return folder


def test_files_are_divided_in_order(images, tmp_path):
    shards, problems = plan_shards([str(images), "none.png"], 3)
    assert [len(x.source.files) for x in shards] == [3, 3, 1]
    assert [(x.number, x.first) for x in shards] == [(0, 1), (1, 4), (2, 7)]
    assert len(problems) == 1 and problems[0].startswith("none.png")
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{images / name}\n" for name in ("b.png", "a.png")) + "\n")
    ((shard,), _) = plan_shards([str(listed)], 3)
    assert shard.source.files == (str(images / "b.png"), str(images / "a.png"))


@pytest.mark.parametrize(
    ("inputs", "size", "said"),
    [
        (["none.png"], 3, "none.png: no such file"),
        (["none.txt"], 3, "none.txt: no such file"),
        (["none.tar"], 3, "none.tar: no such file"),
        ([], 3, "no images"),
        (["x.png"], 0, "--shard-size must be 1 or more, got 0"),
    ],
)
def test_inputs_of_nothing_are_refused(inputs, size, said):
    with pytest.raises(ValueError, match=said):
        plan_shards(inputs, size)


def test_parts_are_all_shards_once(images):
    shards, _ = plan_shards([str(images)], 1)
    parts = [part_of(shards, f"{k}/3") for k in (1, 2, 3)]
    assert sorted(x.number for part in parts for x in part) == list(range(7))
    for wrong in ("0/3", "4/3", "1", "a/b", "1/0"):
        with pytest.raises(ValueError, match="--part must be K/N"):
            part_of(shards, wrong)


def test_a_run_that_is_killed_again_and_again_finds_every_image_once(images, tmp_path):
    """Each run is killed at its fourth image; a shard has two, so that two shards are done."""
    shards, _ = plan_shards([str(images)], 2)

    def run():
        folder = folder_of(tmp_path / "out", shards)
        kill = StubPredictor(2, before=lambda n: n == 4 and os.kill(os.getpid(), signal.SIGKILL))
        worker = ShardWorker(kill, folder)
        for shard in shards:
            if shard.number not in folder.done():
                worker.run(shard)
        return 0

    codes = [in_a_child(run) for _ in range(2)]
    assert codes == [-signal.SIGKILL, 0]
    totals = folder_of(tmp_path / "out", shards).finish()
    found = [x["image_id"] for x in results_of(tmp_path / "out")]
    assert found == sorted(2 * [1, 2, 3, 5, 6, 7])
    assert (totals.shards, totals.images, totals.instances) == (4, 6, 12)
    assert [x.image_id for x in totals.bad] == [4]


def test_a_shard_without_a_record_is_done_anew(images, tmp_path):
    """Killed between results and record: the results are replaced."""
    shards, _ = plan_shards([str(images)], 7)
    folder = folder_of(tmp_path / "out", shards)
    ShardWorker(StubPredictor(3), folder).run(shards[0])
    (tmp_path / "out/done/000000.json").unlink()
    assert folder.done() == set()
    ShardWorker(StubPredictor(1), folder).run(shards[0])
    assert [x["image_id"] for x in results_of(tmp_path / "out")] == [1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize("batch", [1, 3])
def test_bad_images_stand_in_a_table(images, tmp_path, batch):
    """One is no image, and the model cannot bear those whose first pixel is black."""
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(images / "5.png")

    class Picky(StubPredictor):
        def __call__(self, found):
            if isinstance(found, np.ndarray) and not found[0, 0].any():
                raise RuntimeError("black\nis bad")
            return super().__call__(found)

    shards, _ = plan_shards([str(images)], 4)
    folder = folder_of(tmp_path / "out", shards)
    worker = ShardWorker(Picky(1), folder, batch_size=batch)
    records = [worker.run(shard) for shard in shards]
    assert [(x.images, len(x.bad)) for x in records] == [(3, 1), (2, 1)]
    folder.finish()
    rows = bad_rows(tmp_path / "out")
    assert [(x["image_id"], x["file_name"]) for x in rows] == [
        ("4", str(images / "3.png")),
        ("6", str(images / "5.png")),
    ]
    assert "3.png" in rows[0]["reason"] and rows[1]["reason"] == "RuntimeError: black is bad"


def test_a_broken_gpu_ends_the_run_and_marks_nothing(images, tmp_path):
    def lost(_):
        raise RuntimeError("CUDA error: device-side assert triggered")

    shards, _ = plan_shards([str(images)], 7)
    folder = folder_of(tmp_path / "out", shards)
    with pytest.raises(RuntimeError, match="CUDA error"):
        ShardWorker(StubPredictor(1, before=lost), folder).run(shards[0])
    assert folder.done() == set()


def test_a_folder_of_another_run_is_refused(images, tmp_path):
    shards, _ = plan_shards([str(images)], 7)
    folder_of(tmp_path / "out", shards, weights="a.pth")
    folder_of(tmp_path / "out", shards, weights="a.pth")
    with pytest.raises(ValueError, match=r"another run \(weights: 'a.pth' there, 'b.pth' here\)"):
        folder_of(tmp_path / "out", shards, weights="b.pth")
    (images / "8.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"another run \(images: "):
        folder_of(tmp_path / "out", plan_shards([str(images)], 7)[0], weights="a.pth")
    (tmp_path / "out/plan.json").write_text("[")
    with pytest.raises(ValueError, match=r"plan\.json: is damaged .*; name another folder"):
        folder_of(tmp_path / "out", shards, weights="a.pth")


def test_a_damaged_record_is_named(images, tmp_path):
    folder = folder_of(tmp_path / "out", plan_shards([str(images)], 7)[0])
    (tmp_path / "out/done/000000.json").write_text('{"images": 1}')
    with pytest.raises(ValueError, match=r"000000\.json: is damaged .*; delete it, and run again"):
        folder.finish()


# Archives and tables


def encoded(seed):
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (40, 50, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tar(path, count=4):
    """A shard of WebDataset: images, labels, and one member that is no image."""
    with tarfile.open(path, "w") as archive:
        for k in range(count):
            for ending, content in ((".jpg", encoded(k) if k != 2 else b"bad"), (".cls", b"1")):
                member = tarfile.TarInfo(f"{k:03d}{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def test_archives_are_shards(tmp_path):
    files = [write_tar(tmp_path / f"{k}.tar") for k in range(2)]
    shards, _ = plan_shards([str(x) for x in files], 100)
    folder = folder_of(tmp_path / "out", shards)
    worker = ShardWorker(StubPredictor(1), folder, batch_size=2)
    for shard in shards:
        worker.run(shard)
    expected = [start + k for start in (1, 1 + ARCHIVE_IDS) for k in (0, 1, 3)]
    assert [x["image_id"] for x in results_of(tmp_path / "out")] == expected
    assert [x.file_name for x in folder.finish().bad] == [f"{x}/002.jpg" for x in files]


def test_an_archive_that_ends_too_early_is_no_shard_that_is_done(tmp_path):
    whole = write_tar(tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: len(whole) // 3])
    ((shard,), _) = plan_shards([str(tmp_path / "a.tar")], 100)
    folder = folder_of(tmp_path / "out", [shard])
    with pytest.raises(SourceError, match=r"a\.tar: cannot be read \("):
        ShardWorker(StubPredictor(1), folder).run(shard)
    assert folder.done() == set() and not list((tmp_path / "out/results").iterdir())


def whole_archive(tmp_path, ending="tar"):
    """A tar archive, and where the second of its headers begins."""
    modes = {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz", "tar.bz2": "w:bz2"}
    write_tar(tmp_path / "plain.tar")
    file = tmp_path / f"a.{ending}"
    with tarfile.open(tmp_path / "plain.tar") as plain, tarfile.open(file, modes[ending]) as copy:
        members = plain.getmembers()
        for member in members:
            copy.addfile(member, plain.extractfile(member))
    return file, members[1].offset


def names_in(file):
    ((shard,), _) = plan_shards([str(file)], 100)
    return [item.name for item in shard.source.items()]


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_archives_may_be_compressed(tmp_path, ending):
    file, _ = whole_archive(tmp_path, ending)
    assert names_in(file) == [f"{file}/00{k}.jpg" for k in range(4)]


@pytest.mark.parametrize("where", ["between members", "in a header", "before the end", "a byte"])
def test_damage_at_a_header_is_no_end_of_an_archive(tmp_path, where):
    file, second = whole_archive(tmp_path)
    data = bytearray(file.read_bytes())
    end = len(data.rstrip(b"\0"))
    end += -end % 512
    if where == "a byte":
        data[second] ^= 1
    else:
        del data[{"between members": second, "in a header": second + 100}.get(where, end) :]
    file.write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.tar: cannot be read \(cut off or damaged"):
        names_in(file)


@pytest.mark.parametrize("ending", ["tar.gz", "tar.xz", "tar.bz2"])
def test_no_damage_of_a_compressed_archive_loses_images_without_a_word(tmp_path, ending):
    file, _ = whole_archive(tmp_path, ending)
    whole = file.read_bytes()
    expected = [(x.name, x.content) for x in Archive(str(file), 0).items()]
    random = np.random.default_rng(0)
    for place in random.integers(10, len(whole), 40):
        data = bytearray(whole)
        data[place] ^= 1 << int(random.integers(8))
        file.write_bytes(data)
        try:
            found = [(x.name, x.content) for x in Archive(str(file), 0).items()]
        except SourceError:
            continue
        assert len(found) == len(expected)


def test_a_list_of_windows_begins_with_a_mark_and_no_other_name(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa.png\r\nb.png\r\n")
    ((shard,), _) = plan_shards([str(tmp_path / "list.txt")], 3)
    assert shard.source.files == ("a.png", "b.png")


def test_row_groups_of_parquet_are_shards_and_results_are_tables(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    contents = [encoded(k) for k in range(4)] + [b"bad"]
    plain = pa.table({"image": contents, "key": [f"k{k}" for k in range(5)], "label": [0] * 5})
    nested = pa.table({"image": [{"bytes": x, "path": None} for x in contents]})
    for name, table in (("plain", plain), ("nested", nested)):
        parquet.write_table(table, tmp_path / f"{name}.parquet", row_group_size=2)
    inputs = [str(tmp_path / f"{name}.parquet") for name in ("plain", "nested")]
    shards, _ = plan_shards(inputs, 100)
    assert [(x.first, x.source.rows) for x in shards] == [
        (1, 2), (3, 2), (5, 1), (6, 2), (8, 2), (10, 1),
    ]  # fmt: skip
    folder = folder_of(tmp_path / "out", shards, "parquet")
    worker = ShardWorker(StubPredictor(2), folder)
    for shard in shards:
        worker.run(shard)
    names = [x.file_name for x in folder.finish().bad]
    assert names == ["k4", f"{inputs[1]}[4]"]
    rows = parquet.read_table(tmp_path / "out/results").to_pylist()
    assert sorted({x["image_id"] for x in rows}) == [1, 2, 3, 4, 6, 7, 8, 9]
    assert len(rows) == 16
    assert set(rows[0]) == {
        *("image_id", "file_name", "category_id", "category_name", "score", "bbox", "size"),
        "counts",
    }
    assert rows[0]["bbox"] == [4, 3, 26, 17] and rows[0]["size"] == [40, 50]


def test_tables_without_images_are_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: has no column of image bytes .*\['a'\]"):
        plan_shards([str(tmp_path / "a.parquet")], 100)
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"b\.parquet: cannot be read \("):
        plan_shards([str(tmp_path / "b.parquet")], 100)


# The command


@pytest.fixture
def no_model(monkeypatch):
    """Commands with a stub in place of a model, of which there are no files."""
    monkeypatch.setattr(sharding, "contents", lambda *_: "")


@pytest.mark.usefixtures("no_model")
def test_the_command_goes_on_and_counts(images, tmp_path, capsys):
    arguments = ("--input", images, "--shards", tmp_path / "out", "--shard-size", 2)
    assert demo(StubPredictor(2), *arguments, "--part", "2/2") == 1  # 3.png
    assert "2 of 4 shards are done: 2 images, 4 instances found, 1 images left" in (
        capsys.readouterr().out
    )
    predictor = StubPredictor(2)
    assert demo(predictor, *arguments) == 1
    assert predictor.seen == 4  # of the other two shards
    assert "4 of 4 shards are done: 6 images, 12 instances found" in capsys.readouterr().out
    assert demo(StubPredictor(before=pytest.fail), *arguments) == 1  # nothing is left to do
    (images / "3.png").unlink()
    assert demo(StubPredictor(2), *arguments[:3], tmp_path / "other", *arguments[4:]) == 0


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--save-json", "a.json"), "leave --save-json out"),
        (("--output", "a"), "leave --output out"),
        (("--style", "boxes"), "leave --style out"),
        (("--no-draw",), "leave --no-draw out"),
        (("--tolerance", "0"), "leave --tolerance out"),
        (("--ray", "0"), "must be 1 or more, got 1 and 0"),
        (("--part", "3/2"), "--part must be K/N"),
    ],
)
def test_options_that_shards_cannot_have_are_named(images, tmp_path, capsys, words, said):
    code = demo(StubPredictor(), "--input", images, "--shards", tmp_path / "out", *words)
    assert code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [("--part", "1/2"), ("--ray", "3"), ("--shard-size", "0"), ("--shard-format", "coco")],
)
def test_options_of_shards_without_shards_are_named(images, capsys, words):
    assert demo(StubPredictor(), "--input", images, *words) == 2
    assert f"{words[0]} is of --shards, which is not given" in capsys.readouterr().err


def test_a_run_whose_files_have_changed_is_refused(images, tmp_path, capsys):
    """Whatever the names are, a run does not go on with another model."""
    cfg = tiny_config("OUTPUT_DIR", str(tmp_path))
    weights, names = tmp_path / "model.pth", tmp_path / "names.txt"
    config = tmp_path / "tiny.yaml"

    def write(seed=0, words="a b c"):
        torch.manual_seed(seed)
        torch.save({"model": build_model(cfg).state_dict()}, weights)
        names.write_text("\n".join(words.split()))
        config.write_text(cfg.dump())

    def run(*more):
        words = ["--config-file", config, "--weights", weights, "--class-names", names]
        words += ["--input", images, "--shards", tmp_path / "out", *more]
        return predict.main([str(x) for x in words])

    write()
    assert run() == 1  # 3.png
    assert run() == 1
    capsys.readouterr()
    for change in ({"seed": 1}, {"words": "a b d"}):
        write(**change)
        assert run() == 2
        assert "has results of another run (contents: " in capsys.readouterr().err
    write()
    sigma, cfg.MODEL.SOLO.NMS_SIGMA = cfg.MODEL.SOLO.NMS_SIGMA, 3.0
    config.write_text(cfg.dump())
    assert run() == 2
    cfg.MODEL.SOLO.NMS_SIGMA = sigma
    write()
    assert run("--allow-partial") == 2
    assert run() == 1


@pytest.mark.usefixtures("no_model")
def test_ids_of_a_dataset_are_written(images, tmp_path):
    entries = [
        {"id": 100 + k, "file_name": f"{k}.png", "height": 40, "width": 50 if k else 51}
        for k in range(7)
    ]
    content = {"images": entries, "annotations": [], "categories": [{"id": 9, "name": "cup"}]}
    (tmp_path / "ids.json").write_text(json.dumps(content))
    words = ("--input", images, "--shards", tmp_path / "out", "--shard-size", 4)
    assert demo(StubPredictor(1), *words, "--ids", tmp_path / "ids.json") == 1
    found = results_of(tmp_path / "out")
    assert [x["image_id"] for x in found] == [101, 102, 104, 105, 106]
    assert {x["category_id"] for x in found} == {9}
    assert [x["image_id"] for x in bad_rows(tmp_path / "out")] == [
        "100",
        "103",
    ]  # the size is wrong


# Ray


@pytest.mark.usefixtures("no_model")
def test_what_workers_get_can_be_pickled(images, tmp_path):
    words = ["--config-file", "any", "--input", str(images), "--shards", str(tmp_path / "out")]
    args = predict.make_parser().parse_args([*words, "--shard-size", "2"])
    shards, _, folder = sharding._prepare(args, ["SEED", "1"])
    make = functools.partial(sharding.make_worker, args, ["SEED", "1"], predict.make_run, folder)
    again, others = pickle.loads(pickle.dumps((make, shards)))
    assert others == shards
    assert again.func is make.func and again.args[:3] == make.args[:3]
    again.args[3].commit(others[0], [], Record(2, 0))
    assert folder.done() == {0}


class Pool:
    """One actor that does shards as a script says."""

    def __init__(self, outcomes):
        self.outcomes, self.current = {k: deque(x) for k, x in outcomes.items()}, None

    def start(self, shards):
        self.current = shards.popleft() if shards else None
        return self.current is not None

    def next(self):
        return self.current, self.outcomes[self.current.number].popleft()


class ActorDiedError(Exception):
    """The name that Ray gives it."""


def test_a_shard_whose_worker_died_is_done_again_and_given_up_in_the_end(images):
    shards, _ = plan_shards([str(images)], 2)
    done, died = Record(2, 4), ActorDiedError("The actor died unexpectedly")
    script = {
        0: [died, done], 1: [done], 2: [died] * ATTEMPTS, 3: [SourceError("a.tar: is gone")],
    }  # fmt: skip
    pool = Pool(script)
    found = {shard.number: result for shard, result in run_shards(shards, pool)}
    assert found[0] == found[1] == done
    assert found[2] == "its worker ended 3 times (its process died)"
    assert found[3] == "a.tar: is gone"
    assert not any(pool.outcomes.values())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (type("OutOfMemoryError", (Exception,), {})("Task was killed"), "out of memory: lower"),
        (ActorDiedError("killed due to the node running low on memory"), "out of memory: lower"),
        (ActorDiedError("SIGKILL"), "its process died"),
        (RuntimeError("CUDA error: x\n"), "CUDA error: x"),
    ],
)
def test_why_a_worker_ended(error, said):
    assert reason(error).startswith(said)
