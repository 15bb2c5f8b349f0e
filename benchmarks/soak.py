"""Try to lose work and to load wrong data: kills, full disks, bit flips, hostile annotations.

    python benchmarks/soak.py
    python benchmarks/soak.py --kills 20 --flips 60 --jsons 100 --full-disks 5 --stops 2

Every attempt runs in a process of its own (POSIX only). The table counts attempts and failures; the
exit code is 0 only without failures. Everything follows from `--seed`, except at which moment a
process is killed. `--minutes` ends the run early, and the table says how far it came.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from solo_d2.checkpoint import SOLOCheckpointer, load_checkpoint
from solo_d2.data.datasets.coco_json import load_coco_json

SECONDS_PER_JSON = 20
"""A reader that needs longer for one small file hangs."""

JUNK: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        0.5,
        1e300,
        float("nan"),
        float("inf"),
        10**40,
        "",
        "1",
        "\ud800",
        "x" * 999,
    ),
    *([], {}, [[]], [None], {"size": [3, 3], "counts": "0"}, [[0, 0, 1, 1]], [1e9] * 8),
)
"""Values that a fuzzed file has in the place of others."""


@dataclass
class Count:
    """Attempts of one kind.

    Attributes:
        kind: what is tried.
        failure: what must not happen.
        wanted: number of attempts.
        done: of these, made.
        failures: descriptions of what went wrong.
    """

    kind: str
    failure: str
    wanted: int
    done: int = 0
    failures: list[str] = field(default_factory=list)


def in_child(work: Callable[[], None]) -> int:
    """Run a function in a forked process; returns its number."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        work()
        code = 0
    finally:
        os._exit(code)


def make_checkpointer(folder: Path) -> SOLOCheckpointer:
    """Return the checkpointer of a model of 240 kB."""
    return SOLOCheckpointer(nn.Linear(300, 200), str(folder))


def save_for_ever(folder: Path, done: int) -> None:
    """Save checkpoint after checkpoint, and write the number of each whole one to `done`."""
    checkpointer = make_checkpointer(folder)
    for iteration in range(1, 1_000_000):
        nn.init.constant_(checkpointer.model.bias, iteration)
        checkpointer.save(f"model_{iteration % 3}", iteration=iteration)
        os.write(done, f"{iteration}\n".encode())


def kill_saving(folder: Path, chance: random.Random) -> str | None:
    """Kill a process that saves; its last whole checkpoint must be there, and be whole."""
    reader, writer = os.pipe()
    process = in_child(lambda: save_for_ever(folder, writer))
    os.close(writer)
    first = os.read(reader, 1)  # there is one
    time.sleep(chance.uniform(0, 0.05))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    with os.fdopen(reader, "rb") as pipe:
        told = (first + pipe.read()).split()
    return check_resumed(folder, int(told[-1]))


def check_resumed(folder: Path, least: int) -> str | None:
    """Resume, and compare the iteration with the last that is known to have been saved."""
    checkpointer = make_checkpointer(folder)
    try:
        iteration = checkpointer.resume_or_load("")["iteration"]
    except (ValueError, KeyError) as error:
        return f"nothing to resume from: {error}"
    if iteration < least:
        return f"resumed at {iteration}, but {least} was saved"
    if not bool((checkpointer.model.bias == iteration).all()):
        return f"the parameters are not those of iteration {iteration}"
    return None


def fill_disk(folder: Path, chance: random.Random) -> str | None:
    """Save where a file cannot grow; the error must be told, and the older file must stay."""
    checkpointer = make_checkpointer(folder)
    nn.init.constant_(checkpointer.model.bias, 1)
    checkpointer.save("model_0", iteration=1)
    size = (folder / "model_0.pth").stat().st_size
    limit = chance.randrange(1, size)

    def save() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        nn.init.constant_(checkpointer.model.bias, 2)
        try:
            checkpointer.save("model_0", iteration=2)
        except OSError:
            return
        raise AssertionError("no error")

    code = os.waitpid(in_child(save), 0)[1]
    if code:
        return f"a limit of {limit} bytes: no OSError (status {code})"
    return check_resumed(folder, 1)


def flip_bit(folder: Path, chance: random.Random) -> str | None:
    """Load a checkpoint with one wrong bit: it must be refused, or be the same."""
    whole = folder / "whole.pth"
    if not whole.exists():
        torch.manual_seed(0)
        make_checkpointer(folder).save("whole", iteration=1)
    content = bytearray(whole.read_bytes())
    place, bit = chance.randrange(len(content)), chance.randrange(8)
    content[place] ^= 1 << bit
    (folder / "flipped.pth").write_bytes(content)
    try:
        found = load_checkpoint(folder / "flipped.pth")["model"]
    except ValueError:
        return None
    expected = load_checkpoint(whole)["model"]
    same = found.keys() == expected.keys() and all(
        torch.equal(found[k], expected[k]) for k in found
    )
    return None if same else f"bit {bit} of byte {place}: other weights"


def good_annotations(folder: Path) -> dict[str, Any]:
    """Return a COCO file of two images, which are written as well."""
    for k in (1, 2):
        if not (folder / f"p{k}.png").exists():
            Image.fromarray(np.zeros((50, 70, 3), np.uint8)).save(folder / f"p{k}.png")
    square = [5, 12, 23, 12, 23, 30, 5, 30]
    return {
        "images": [{"id": k, "file_name": f"p{k}.png", "height": 50, "width": 70} for k in (1, 2)],
        "annotations": [
            {
                **{"id": k, "image_id": 1 + k % 2, "category_id": 1, "segmentation": [square]},
                **{"bbox": [5, 12, 18, 18], "area": 324, "iscrowd": 0},
            }
            for k in range(1, 7)
        ],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "fork"}],
    }


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container with every key or index below a value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def fuzz(content: dict[str, Any], chance: random.Random) -> str:
    """Return the text of a file with up to four wrong places, or cut off."""
    content = copy.deepcopy(content)
    for _ in range(chance.randint(1, 4)):
        container, key = chance.choice(list(places(content)))
        change = chance.random()
        if change < 0.7:
            container[key] = copy.deepcopy(chance.choice(JUNK))
        elif change < 0.85:
            del container[key]
        elif isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        else:
            container[key] = [container[key]]
    text = json.dumps(content)
    return text[: chance.randrange(len(text))] if chance.random() < 0.05 else text


def read_fuzzed(folder: Path, chance: random.Random) -> str | None:
    """Read a fuzzed annotation file: records or one `ValueError`, in time."""
    text = fuzz(good_annotations(folder), chance)
    (folder / "fuzzed.json").write_text(text)

    def read() -> None:
        signal.alarm(SECONDS_PER_JSON)
        try:
            load_coco_json(folder / "fuzzed.json", folder)
        except ValueError as error:
            if "\n" in str(error):
                raise AssertionError("more than one line") from error

    status = os.waitpid(in_child(read), 0)[1]
    return f"status {status}: {text[:300]}" if status else None


def stop_training(folder: Path, chance: random.Random) -> str | None:
    """Stop a training by SIGTERM at a random moment; it must be possible to go on from there."""
    import train_net

    config = Path(__file__).with_name("soak.yaml")
    good = good_annotations(folder)
    (folder / "train.json").write_text(json.dumps(good))
    files = ["--train-json", folder / "train.json", "--train-images", folder]
    rest = ["OUTPUT_DIR", folder / "out", "SOLVER.MAX_ITER"]
    arguments = [str(x) for x in ("--config-file", config, *files)]

    def train() -> None:
        train_net.invoke_main([*arguments, *map(str, rest), "100000"])

    process = in_child(train)
    log = folder / "out" / "log.txt"
    while not (log.is_file() and "Starting training" in log.read_text()):
        time.sleep(0.05)
        if os.waitpid(process, os.WNOHANG)[0]:
            return "the training ended by itself"
    time.sleep(chance.uniform(0.2, 1.5))
    os.kill(process, signal.SIGTERM)
    os.waitpid(process, 0)
    tag = folder / "out" / "last_checkpoint"
    if not tag.is_file():
        return "no checkpoint after SIGTERM"
    iteration = load_checkpoint(tag.with_name(tag.read_text()))["iteration"]
    more = [*arguments, "--resume", *map(str, rest), str(iteration + 3)]
    status = os.waitpid(in_child(lambda: sys.exit(train_net.invoke_main(more))), 0)[1]
    final = folder / "out" / "model_final.pth"
    if status or not final.is_file():
        return f"cannot go on from iteration {iteration}"
    return None


ATTEMPTS: dict[str, tuple[Callable[[Path, random.Random], str | None], str, str, int]] = {
    "kills": (kill_saving, "kill -9 while saving", "lost", 200),
    "full_disks": (fill_disk, "full disk while saving", "lost", 50),
    "flips": (flip_bit, "one wrong bit in a checkpoint", "loaded wrong", 600),
    "jsons": (read_fuzzed, "hostile annotation file", "crashed", 1000),
    "stops": (stop_training, "SIGTERM in training", "lost", 5),
}
"""Function of one attempt, what it tries, what must not happen, and how often by default."""

SHARED = ("flips", "jsons")
"""Kinds whose attempts leave nothing that others could trip over."""


def attempt(name: str, wanted: int, seed: int, end: float) -> Count:
    """Make all attempts of one kind, or as many as there is time for."""
    function, kind, failure, _ = ATTEMPTS[name]
    count, chance = Count(kind, failure, wanted), random.Random(f"{name} {seed}")
    with tempfile.TemporaryDirectory() as root:
        for index in range(wanted):
            if time.monotonic() > end:
                break
            folder = Path(root, "all" if name in SHARED else str(index))
            folder.mkdir(exist_ok=True)
            problem = function(folder, chance)
            count.done += 1
            if problem:
                count.failures.append(f"{kind}, attempt {index}: {problem}")
    return count


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, (_, kind, _, number) in ATTEMPTS.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=number, help=f"{kind} (default: {number})")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices (default: 0)")
    parser.add_argument("--minutes", type=float, default=15, help="limit of time (default: 15)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = make_parser().parse_args(argv)
    torch.set_num_threads(1)  # threads do not survive a fork
    logging.disable(logging.WARNING)
    end = time.monotonic() + 60 * args.minutes
    print("| attempts | | failures |\n|---|---|---|")
    failures: list[str] = []
    for name in ATTEMPTS:
        count = attempt(name, getattr(args, name), args.seed, end)
        part = "" if count.done == count.wanted else f" of {count.wanted} (out of time)"
        result = f"{len(count.failures)} {count.failure}"
        print(f"| {count.kind} | {count.done}{part} | {result} |", flush=True)
        failures += count.failures
    for line in failures:
        print(line, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # train_net.py
    sys.exit(main())
