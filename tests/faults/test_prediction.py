"""Faults of demo.py over images: nothing found is lost, and no single image ends a run."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket

import numpy as np
import pytest
import torch
from stub_predictor import StubPredictor, demo, in_a_child, load_demo, picture

from solo_d2.inference.drawing import draw_instances, drawable
from solo_d2.inference.inputs import find_images
from solo_d2.inference.interrupt import Interrupted, signals_as_interrupts
from solo_d2.inference.outputs import output_paths
from solo_d2.io.growing import GrowingFile, OutputError
from solo_d2.io.json_file import JsonList
from solo_d2.io.results_file import ResultsFile

IMAGES = 6


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder to work in, with six images."""
    for k in range(IMAGES):
        picture(tmp_path / "in" / f"{k}.png", seed=k)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def images_in(path):
    """Names of the images in a results file of any kind."""
    text = path.read_text()
    if path.suffix == ".jsonl":
        entries = [json.loads(line) for line in text.splitlines()]
    else:
        entries = json.loads(text)
        entries = entries["results"] if isinstance(entries, dict) else entries
    return {entry["file_name"].rsplit("/", 1)[-1] for entry in entries}


def partial(folder, stem):
    return sorted(folder.glob(f"{stem}.partial-*"))


# What ends a run


def kill(number):
    return lambda: os.kill(os.getpid(), number)


def raising(error):
    def run():
        raise error

    return run


ENDS = {
    "SIGINT": (kill(signal.SIGINT), 130, "interrupted (SIGINT) after 3 of 6 images"),
    "SIGTERM": (kill(signal.SIGTERM), 143, "interrupted (SIGTERM) after 3 of 6 images"),
    "SIGHUP": (kill(signal.SIGHUP), 129, "interrupted (SIGHUP) after 3 of 6 images"),
    "lost GPU": (raising(RuntimeError("CUDA error: illegal memory access")), 1, "CUDA error"),
    "full disk": (raising(OutputError("r.json: cannot be written (full)")), 1, "r.json: cannot be"),
    "system exit": (raising(SystemExit(7)), 7, None),
}
KINDS = {"r.json": False, "r.jsonl": False, "panoptic.json": True, "panoptic.jsonl": True}


@pytest.mark.parametrize("older", [False, True], ids=["new", "older"])
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("end", ENDS)
def test_what_was_found_is_kept_whatever_ends_the_run(work, capsys, end, name, older):
    stop, code, said = ENDS[end]
    predictor = StubPredictor(before=lambda n: stop() if n == 4 else None, panoptic=KINDS[name])
    target = work / name
    if older:
        target.write_text("precious")
    line = ("--input", "in", "--no-draw", "--save-json", name)
    if end == "system exit":
        with pytest.raises(SystemExit):
            demo(predictor, *line)
    else:
        assert demo(predictor, *line) == code
        error = capsys.readouterr().err
        assert said in error and "Traceback" not in error
    (kept,) = partial(work, target.stem) if older else [target]
    assert images_in(kept) == {"0.png", "1.png", "2.png"}
    assert not older or target.read_text() == "precious"
    assert len(os.listdir(work)) == 2 + older  # with the images


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_disturb_the_end(work, number):
    def stop(n):
        if n == 2:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), number)

    assert demo(StubPredictor(before=stop), "--input", "in", "--save-json", "r.json") == 143
    assert images_in(work / "r.json") == {"0.png"}


def test_handlers_come_back_and_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(Interrupted), signals_as_interrupts():
            os.kill(os.getpid(), signal.SIGHUP)  # as under nohup
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert handlers == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGHUP, before)


def test_before_the_first_image_nothing_is_written(work, capsys):
    (work / "r.json").write_text("precious")
    stop = StubPredictor(before=lambda n: os.kill(os.getpid(), signal.SIGTERM))
    assert demo(stop, "--input", "in", "--output", "out", "--save-json", "r.json") == 143
    assert (work / "r.json").read_text() == "precious"
    assert sorted(os.listdir(work)) == ["in", "r.json"]


def test_a_signal_while_the_model_is_built_is_one_line(work, capsys):
    module = load_demo(None)

    def build(args, overrides):
        os.kill(os.getpid(), signal.SIGTERM)

    module.make_predictor = build
    assert module.main(["--config-file", "x", "--input", "in", "--save-json", "r.json"]) == 143
    assert capsys.readouterr().err.strip().endswith("interrupted (SIGTERM)")
    assert os.listdir(work) == ["in"]


def test_a_killed_process_leaves_a_file_that_can_be_read(work):
    (work / "r.json").write_text("precious")
    stub = StubPredictor(before=lambda n: os.kill(os.getpid(), 9) if n == 5 else None)
    line = ("--input", "in", "--no-draw", "--save-json", "r.json")
    assert in_a_child(lambda: demo(stub, *line)) == -signal.SIGKILL
    assert (work / "r.json").read_text() == "precious"
    (kept,) = partial(work, "r")
    assert images_in(kept) == {"0.png", "1.png", "2.png", "3.png"}


class TightFile:
    """A file on a disk with room for `limit` bytes, which takes as much as fits."""

    def __init__(self, limit):
        self.limit, self.data, self.place = limit, bytearray(), 0

    def write(self, data):
        fits = min(len(data), self.limit - self.place)
        if fits <= 0:
            raise OSError(28, "No space left on device")
        self.data[self.place : self.place + fits] = data[:fits]
        self.place += fits
        return fits

    def seek(self, offset):
        self.place = offset

    def truncate(self, size):
        del self.data[size:]


@pytest.mark.parametrize("kind", ["list", "lines", "object"])
@pytest.mark.parametrize("limit", range(20, 90, 3))
def test_a_list_on_a_full_disk_has_all_entries_that_fitted(limit, kind):
    file = TightFile(limit)
    brackets = {"list": (), "lines": ("", "\n", "\n"), "object": ('{"a": [', "]}")}[kind]
    entries, written = JsonList(file, *brackets), 0
    with pytest.raises(OSError):
        for _ in range(100):
            entries.extend(['{"score": 1}'])
            written += 1
    text = file.data.decode()
    content = [json.loads(x) for x in text.splitlines()] if kind == "lines" else json.loads(text)
    content = content["a"] if kind == "object" else content
    assert content == [{"score": 1}] * written == [{"score": 1}] * entries.count


@pytest.mark.parametrize("parts", [[b"]", b", 1" * 100], [b"x" * 200]])
def test_an_end_that_does_not_fit_leaves_the_list_whole(parts):
    entries = JsonList(file := TightFile(60))
    entries.extend(["1", "2"])
    with pytest.raises(OSError):
        entries.close_with(parts)
    assert json.loads(file.data) == [1, 2]


@pytest.mark.parametrize("panoptic", [False, True])
def test_a_full_disk_keeps_what_was_there_and_what_was_found(work, capsys, monkeypatch, panoptic):
    write = GrowingFile.write

    def tight(self, data):
        if self.tell() + len(data) > 1000:
            raise OutputError(f"{self.target}: cannot be written (No space left on device)")
        return write(self, data)

    monkeypatch.setattr(GrowingFile, "write", tight)
    (work / "r.json").write_text("precious")
    line = ("--input", "in", "--no-draw", "--save-json", "r.json")
    assert demo(StubPredictor(count=2, panoptic=panoptic), *line) == 1
    assert (work / "r.json").read_text() == "precious"
    error = capsys.readouterr().err
    assert "No space left on device" in error and "Traceback" not in error
    (kept,) = partial(work, "r")
    assert str(kept) in error.replace(str(work), str(kept.parent))
    assert images_in(kept) < {f"{k}.png" for k in range(IMAGES)}


def test_the_panoptic_part_stays_beside_if_there_is_no_room_to_join(work):
    file = ResultsFile(work / "r.json")
    for k in range(3):
        file.add([{"file_name": str(k)}], {"image_id": k})
    (spool,) = partial(work, "r_panoptic")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        with pytest.raises(OutputError, match=rf"{spool.name}"):
            file.finish(whole=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert json.loads(spool.read_text()) == [{"image_id": k} for k in range(3)]
    (kept,) = partial(work, "r")
    assert images_in(kept) == {"0", "1", "2"}


# Targets


def folder_named(path):
    path.mkdir()


def below_a_file(path):
    path.write_text("")
    return path / "r.json"


TARGETS = {
    "a folder": (folder_named, "is a folder"),
    "a device": (lambda path: path.symlink_to("/dev/null"), "is a device"),
    "a named pipe": (os.mkfifo, "is a named pipe"),
    "below a file": (below_a_file, "is no folder"),
    "links that form a loop": (lambda path: path.symlink_to(path.name), "leads nowhere or to itse"),
    "an input": (lambda path: path.symlink_to("in/0.png"), "is an input"),
    "a drawing": (lambda path: path.symlink_to("out/0.png"), "is the drawing, too"),
    "the class names": (lambda path: path.symlink_to("names.txt"), "is an input"),
    "a name of 300 bytes": (lambda path: path.with_name("r" * 300), "cannot be"),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_targets_that_cannot_be_are_told_before_the_first_image(work, capsys, kind):
    make, said = TARGETS[kind]
    (work / "names.txt").write_text("cup\nfork\n")
    (work / "out").mkdir()
    target = make(work / "r.json") or work / "r.json"
    predictor = StubPredictor()
    line = ("--input", "in", "--output", "out", "--class-names", "names.txt")
    assert demo(predictor, *line, "--save-json", target) == 2
    assert predictor.seen == 0
    (error,) = capsys.readouterr().err.splitlines()
    assert said in error
    assert os.listdir("out") == [] and len(os.listdir("in")) == IMAGES


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_write_protected_targets_are_told_before_the_first_image(work, capsys, what):
    (work / "sub").mkdir()
    (work / "sub" / "r.json").write_text("precious")
    (work / "sub" / "r.json" if what == "file" else work / "sub").chmod(0o555)
    assert demo(StubPredictor(), "--input", "in", "--save-json", "sub/r.json") == 2
    assert "write-protected" in capsys.readouterr().err


def test_links_are_followed_and_long_names_are_written(work):
    (work / "sub").mkdir()
    (work / "r.json").symlink_to("sub/real.json")
    assert demo(StubPredictor(), "--input", "in", "--no-draw", "--save-json", "r.json") == 0
    assert (work / "r.json").is_symlink()
    assert len(images_in(work / "sub" / "real.json")) == IMAGES
    name = "\u4e2d" * 80 + ".json"
    assert demo(StubPredictor(), "--input", "in", "--no-draw", "--save-json", name) == 0
    assert len(images_in(work / name)) == IMAGES


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("name", KINDS)
def test_a_whole_run_gives_a_whole_file(work, name, count):
    (work / name).write_text("older")
    line = ("--input", "in", "--no-draw", "--save-json", name)
    assert demo(StubPredictor(count, panoptic=KINDS[name]), *line) == 0
    assert sorted(os.listdir(work)) == sorted(["in", name])
    text = (work / name).read_text()
    if name.endswith(".jsonl"):
        lines = [json.loads(line) for line in text.splitlines()]
        assert len(lines) == IMAGES * (count + KINDS[name])
        assert sum("segments_info" in line for line in lines) == IMAGES * KINDS[name]
        return
    content = json.loads(text)
    results = content["results"] if KINDS[name] else content
    assert len(results) == IMAGES * count
    if KINDS[name]:
        assert [x["image_id"] for x in content["panoptic"]] == list(range(1, IMAGES + 1))


# One image never ends a run


def out_of_memory(n):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def no_memory(n):
    raise MemoryError("100 masks need 3.2 GiB of memory")


def runtime_error(n):
    raise RuntimeError("shape\n'[1]' is\ninvalid")


def key_error(n):
    raise KeyError("what")


def recursion(n):
    return recursion(n)


ERRORS = {
    "MemoryError": (no_memory, "too large for the memory that is left (100 masks need 3.2 GiB"),
    "CUDA out of memory": (out_of_memory, "too large for the memory that is left (CUDA out of"),
    "RuntimeError": (runtime_error, "RuntimeError: shape '[1]' is invalid"),
    "KeyError": (key_error, "KeyError: 'what'"),
    "RecursionError": (recursion, "RecursionError"),
}


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("kind", ERRORS)
def test_an_image_that_fails_is_named_and_the_others_are_done(work, capsys, kind, batch):
    fail, said = ERRORS[kind]
    bad = np.zeros((9, 9, 3), np.uint8)
    picture(work / "in" / "3.png", (9, 9))

    class Picky(StubPredictor):
        def __call__(self, images):
            if not isinstance(images, list) and images.shape == bad.shape:
                fail(0)
            return super().__call__(images)

    line = ("--input", "in", "--output", "out", "--save-json", "r.json", "--batch-size", batch)
    assert demo(Picky(), *line) == 1
    skipped = [x for x in capsys.readouterr().err.splitlines() if x.startswith("skipped")]
    assert len(skipped) == 1 and f"3.png: {said}" in skipped[0]
    assert images_in(work / "r.json") == {f"{k}.png" for k in range(IMAGES) if k != 3}
    assert len(os.listdir("out")) == IMAGES - 1


def test_scores_that_json_has_not_are_a_failure_of_their_image(work, capsys):
    class NotANumber(StubPredictor):
        def __call__(self, images):
            found = super().__call__(images)
            if not isinstance(images, list) and self.seen == 2:
                found["instances"].scores[0] = float("nan")
            return found

    assert demo(NotANumber(), "--input", "in", "--no-draw", "--save-json", "r.json") == 1
    assert "1.png: " in capsys.readouterr().err
    assert images_in(work / "r.json") == {"0.png", "2.png", "3.png", "4.png", "5.png"}


def test_a_run_without_one_good_image_leaves_the_older_file(work):
    (work / "r.json").write_text("precious")
    assert demo(StubPredictor(before=no_memory), "--input", "in", "--save-json", "r.json") == 1
    assert (work / "r.json").read_text() == "precious"


def test_memory_does_not_grow_with_images(work):
    import tracemalloc

    def kept(n):
        stub = StubPredictor(20)
        module = load_demo(stub)
        runs = []

        def make_run(args, overrides, make=module.make_run):
            runs.append(make(args, overrides))
            return runs[0]

        tracemalloc.start()
        inputs = [f"in/{k % IMAGES}.png" for k in range(n)]
        (work / "many").mkdir(exist_ok=True)
        for k, file in enumerate(inputs):
            if not os.path.exists(f"many/{n}_{k}.png"):
                os.link(file, f"many/{n}_{k}.png")
        line = ["--config-file", "x", "--input", f"many/{n}_*.png", "--no-draw"]
        assert module.main([*line, "--save-json", "r.json"], make_run=make_run) == 0
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return size

    kept(10)
    assert kept(110) - kept(10) < 100 * 1024  # an image's 20 results are 6 KiB of text


# Names


NAMES = {
    "Latin-1": b"\xe9t\xe9.jpg",
    "broken UTF-8": b"\xff\xfe.png",
    "newline": b"a\nb.png",
    "terminal codes": b"\x1b[31m.png",
    "right to left": "\u202e\u05d0.png".encode(),
    "emoji": "\U0001f600.png".encode(),
    "255 bytes": b"a" * 251 + b".png",
    "255 bytes, other extension": b"a" * 250 + b".tiff",
    "quotes": b"'\"$(x).png",
}


@pytest.mark.parametrize("kind", NAMES)
def test_every_file_name_is_predicted_drawn_and_saved(work, capsys, kind):
    name = os.fsdecode(NAMES[kind])
    picture(work / "odd" / "x.png").rename(work / "odd" / name)
    line = ("--input", "odd", "in/0.png", "--output", "out", "--save-json", "r.json")
    assert demo(StubPredictor(), *line) == 0
    text = (work / "r.json").read_text()
    assert len({x["file_name"] for x in json.loads(text)}) == 2
    assert "\\ud" not in text or kind == "emoji"  # every reader of JSON takes it
    assert len(os.listdir("out")) == 2
    (work / "odd" / name).write_bytes(b"")
    assert demo(StubPredictor(), "--input", "odd", "--output", "out") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("skipped")]) == 1


@pytest.mark.parametrize("output", [os.fsdecode(b"\xe9/x"), os.fsdecode(b"\xe9.png"), "a\nb"])
def test_every_output_name_is_written_and_printed(work, output):
    line = ("--input", "in/0.png", "--output", output)
    assert demo(StubPredictor(), *line, "--save-json", f"{output}.json") == 0
    assert len(list(work.rglob("*.png"))) == IMAGES + 1


def test_class_names_of_any_characters_are_saved_so_that_every_reader_takes_them(work):
    stub = StubPredictor(names=["cup \udcc3\ud800"])
    assert demo(stub, "--input", "in", "--save-json", "r.json") == 0
    (name,) = {x["category_name"] for x in json.loads((work / "r.json").read_text())}
    assert name == r"cup \xc3\ud800"


def ranges():
    """Names that begin at every 97th code point, and odd ones."""
    yield from ("", " ", "a" * 10**6, "\u0301" * 50, "a\0b", "\n", "\x1b[0m", "\ud800\udfff")
    yield from (chr(code) * 3 for code in range(0, 0x110000, 97))


def test_names_of_any_characters_can_be_drawn():
    image = np.zeros((40, 60, 3), np.uint8)
    found = StubPredictor(1)(image)["instances"]
    for name in ranges():
        assert len(drawable(name)) <= 40
        assert draw_instances(image, found, [name]).shape == image.shape


# Which files


def bound(path):
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(before)


def looping(path):
    path.symlink_to("d.png")
    path.with_name("d.png").symlink_to(path.name)


MEMBERS = {
    "named pipe": (os.mkfifo, "is a named pipe"),
    "socket": (bound, "is a socket"),
    "device": (lambda path: path.symlink_to("/dev/full"), "is a device"),
    "loop of links": (looping, "is a link that leads nowhere or to itself"),
    "dead link": (lambda path: path.symlink_to("gone"), "is a link that leads nowhere"),
    "empty file": (lambda path: path.touch(), "not an image in a known format, or empty"),
    "folder called .png": (lambda path: path.mkdir(), "left out 1 subfolder"),
}


@pytest.mark.parametrize("by", ["in", "in/*", "in/**/*.png"])
@pytest.mark.parametrize("kind", MEMBERS)
def test_what_is_no_image_in_a_folder_is_named_and_the_others_are_done(
    work, capsys, caplog, kind, by
):
    make, said = MEMBERS[kind]
    make(work / "in" / "c.png")
    code = demo(StubPredictor(), "--input", by, "--output", "out", "--save-json", "r.json")
    assert len(images_in(work / "r.json")) == IMAGES
    if kind == "folder called .png":
        assert code == 0
        assert by != "in" or f"in: {said}" in caplog.text
    else:
        assert code == 1
        error = capsys.readouterr().err
        assert f"skipped: {os.path.join('in', 'c.png')}: {said}" in error


@pytest.mark.parametrize("kind", MEMBERS)
def test_what_is_no_image_is_named_when_it_is_asked_for(work, kind):
    if kind in ("empty file", "folder called .png"):
        return
    make, said = MEMBERS[kind]
    make(work / "c.png")
    files, problems = find_images(["c.png"])
    assert files == []
    assert problems[0].startswith("c.png: ") and said in problems[0]


def test_what_a_folder_has_beside_images_is_counted_with_the_remedy(work, caplog):
    for name in ("a.mp4", "b.MKV", "notes.txt", "b.txt", "c.json", "sub/x.png"):
        (work / "in" / name).parent.mkdir(exist_ok=True)
        (work / "in" / name).touch()
    files, problems = find_images(["in"])
    assert len(files) == IMAGES and problems == []
    assert [r.message for r in caplog.records] == [
        'in: left out 1 subfolder ("**" in a glob goes into them), 2 videos (use --video-input), '
        "3 other files (.json .txt)"
    ]


def test_a_video_among_images_gets_its_remedy(work):
    (work / "a.mp4").touch()
    assert find_images(["a.mp4"]) == ([], ["a.mp4: is a video. Use --video-input."])


def test_a_folder_that_links_to_itself_gives_every_image_once(work):
    (work / "in" / "again").symlink_to(".")
    assert len(find_images(["in/**/*.png"])[0]) == IMAGES
    assert len(find_images(["in", "./in", "in/0.png", str(work / "in")])[0]) == IMAGES


@pytest.mark.parametrize("pattern", ["a" * 5000, "\0", "in/\0.png", "in/[", "//", "in/*/*/*"])
def test_odd_patterns_are_named(work, pattern):
    files, problems = find_images([pattern])
    assert len(files) == 0 and len(problems) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(work):
    (work / "in").chmod(0)
    try:
        assert "in: cannot be read" in find_images(["in"])[1][0]
    finally:
        (work / "in").chmod(0o755)


# Names of drawings


def test_equal_names_are_all_kept(work):
    files = []
    for name in ("x/a.jpg", "x/a.png", "y/a.png", "x/a.tif", "x/A.png", "x/a_2.png"):
        files.append(work / name)
        picture(work / name)
    assert demo(StubPredictor(), "--input", *files, "--output", "out") == 0
    assert len(os.listdir("out")) == len(files)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("film.mkv", "no image format that can be written"),
        ("a.xyz", "no image format that can be written"),
        ("a.json", "no image format that can be written"),
        ("in/0.png", "is an input, drawing would replace it"),
        ("in", "is an input, drawing would replace it"),
        ("link.png", "is an input, drawing would replace it"),
        ("hard.png", "is an input, drawing would replace it"),
        ("pipe.png", "is a named pipe"),
        ("file/x", "is no folder"),
    ],
)
def test_outputs_that_cannot_be_are_told_before_the_first_image(work, capsys, output, said):
    (work / "link.png").symlink_to("in/0.png")
    os.link("in/0.png", "hard.png")
    os.mkfifo("pipe.png")
    (work / "file").touch()
    before = sorted(os.listdir())
    predictor = StubPredictor()
    assert demo(predictor, "--input", "in/0.png", "--output", output) == 2
    assert predictor.seen == 0
    assert said in capsys.readouterr().err
    assert sorted(os.listdir()) == before


def test_several_images_are_no_file(work):
    files = sorted((work / "in").iterdir())
    with pytest.raises(ValueError, match=r'a\.png: is one file, there are 6 images.*"/"'):
        output_paths(files, "a.png")
    assert output_paths(files, "a.png/")[0] == work.relative_to(work) / "a.png" / "0.png"
    assert output_paths(files, "run.2")[0].parent.name == "run.2"


@pytest.mark.parametrize("option", ["--weights", "--class-names"])
def test_no_drawing_replaces_another_file_that_is_read(work, option):
    target = picture(work / "out" / "0.png")
    before = target.read_bytes()
    assert demo(StubPredictor(), "--input", "in/0.png", "--output", "out", option, target) == 2
    assert target.read_bytes() == before
