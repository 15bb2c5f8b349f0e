"""How well objects of films keep their identities: HOTA and IDF1, against ByteTrack on boxes.

    pip install trackeval trackers
    python benchmarks/tracking.py --films 8
    python benchmarks/tracking.py --speed

Films are those of `solo-d2 scenes film`, whose identities are known. All trackers get the same
instances of the same model; ByteTrack sees their boxes, and the masks of what it numbers are
compared with the truth like those of the others.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from solo_d2 import SOLOPredictor
from solo_d2.data.scenes.film import Film, FilmOptions
from solo_d2.data.scenes.film_writer import make_sprites
from solo_d2.data.scenes.stamps import StampsSource
from solo_d2.layers import masks_to_boxes, pairwise_mask_iou
from solo_d2.tracking import Tracker

Follow = Callable[[Instances], tuple[np.ndarray, np.ndarray]]
"""Takes the instances of a frame; returns rows of those with an object (M,), and its ids (M,)."""

MEASURES = ("HOTA", "DetA", "AssA", "IDF1", "switches")


def ours(*, kernels: bool = True, low: float = 0.3) -> Follow:
    """The package's tracker, on instances with at least the score `low`."""
    tracker = Tracker()

    def follow(instances: Instances) -> tuple[np.ndarray, np.ndarray]:
        found = instances[instances.scores >= low]
        found.row = (instances.scores >= low).nonzero().squeeze(1)
        if not kernels and found.has("pred_kernels"):
            found.remove("pred_kernels")
        found = tracker(found)
        return found.row.numpy(), found.track_ids.numpy()

    return follow


def byte_track(*, low: float = 0.1, **options: float) -> Follow:
    """ByteTrack of the package trackers, on boxes with at least the score `low`."""
    import supervision
    from trackers import ByteTrackTracker

    tracker = ByteTrackTracker(**options)

    def follow(instances: Instances) -> tuple[np.ndarray, np.ndarray]:
        rows = (instances.scores >= low).nonzero().squeeze(1).numpy()
        boxes = supervision.Detections(
            xyxy=instances.pred_boxes.tensor.numpy()[rows].reshape(-1, 4),
            confidence=instances.scores.numpy()[rows],
            class_id=np.zeros(len(rows), int),
            data={"row": rows},
        )
        found = tracker.update(boxes)
        ids = np.asarray(found.tracker_id).astype(int)
        return np.asarray(found.data["row"])[ids >= 0].astype(int), ids[ids >= 0]

    return follow


TRACKERS: dict[str, Callable[[], Follow]] = {
    "masks and kernels (`--track`)": ours,
    "masks alone": lambda: ours(kernels=False),
    "ByteTrack, as it comes": byte_track,
    # The best of 24 settings on four films of another seed.
    "ByteTrack, thresholds of our model": lambda: byte_track(
        low=0.3, track_activation_threshold=0.6, high_conf_det_threshold=0.6
    ),
}


class Sequences:
    """What trackeval takes: identities of truth and tracker by frame, and IoU of their masks."""

    def __init__(self) -> None:
        self.truth: list[np.ndarray] = []
        self.found: list[np.ndarray] = []
        self.overlaps: list[np.ndarray] = []

    def add(self, truth: np.ndarray, found: np.ndarray, overlaps: np.ndarray) -> None:
        """Add a frame: ids (G,) and (M,), IoU (G, M)."""
        self.truth.append(truth)
        self.found.append(found)
        self.overlaps.append(overlaps)

    def measures(self) -> list[float]:
        """Return `MEASURES` in percent, and the number of switches."""
        from trackeval.metrics import CLEAR, HOTA, Identity

        truth, truths = _numbered(self.truth)
        found, founds = _numbered(self.found)
        data = {
            "num_timesteps": len(truth),
            "num_gt_ids": truths,
            "num_tracker_ids": founds,
            "num_gt_dets": sum(map(len, truth)),
            "num_tracker_dets": sum(map(len, found)),
            "gt_ids": truth,
            "tracker_ids": found,
            "similarity_scores": self.overlaps,
        }
        quiet = {"PRINT_CONFIG": False}
        hota = HOTA().eval_sequence(data)
        means = [100 * float(np.mean(hota[key])) for key in ("HOTA", "DetA", "AssA")]
        identity = 100 * float(Identity(quiet).eval_sequence(data)["IDF1"])
        return [*means, identity, float(CLEAR(quiet).eval_sequence(data)["IDSW"])]


def _numbered(ids: Sequence[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """The same ids as numbers from 0 on, and how many there are."""
    known = np.unique(np.concatenate([*ids, np.zeros(0, int)]))
    return [np.searchsorted(known, x) for x in ids], len(known)


def run_film(film: Film, predictor: SOLOPredictor) -> dict[str, list[float]]:
    """Measures of every tracker on one film."""
    follow = {name: make() for name, make in TRACKERS.items()}
    sequences = {name: Sequences() for name in TRACKERS}
    for frame in film:
        image = np.ascontiguousarray(frame.image[..., ::-1])
        instances = predictor(image)["instances"].to("cpu")
        truth = torch.from_numpy(frame.masks)
        together = pairwise_mask_iou(torch.cat([truth, instances.pred_masks]))
        overlaps = together[: len(truth), len(truth) :].numpy()
        for name, tracker in follow.items():
            rows, ids = tracker(instances)
            sequences[name].add(frame.objects, ids, overlaps[:, rows])
    return {name: sequence.measures() for name, sequence in sequences.items()}


def show(results: Sequence[dict[str, list[float]]]) -> None:
    """Print a table of means and standard deviations over films, and what is gained in HOTA."""
    print(f"| {len(results)} films | {' | '.join(MEASURES)} | HOTA gained by `--track` |")
    print("|---" * (len(MEASURES) + 2) + "|")
    first = next(iter(TRACKERS))
    for name in TRACKERS:
        values = np.array([film[name] for film in results])
        cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(values.mean(0), values.std(0), strict=True)]
        gained = np.array([film[first][0] - film[name][0] for film in results])
        ahead = f"{gained.mean():.1f} ± {gained.std():.1f}, in {int((gained > 0).sum())} films"
        print(f"| {name} | {' | '.join(cells)} | {'' if name == first else ahead} |")


def crowd(count: int, size: tuple[int, int], shift: int) -> Instances:
    """Discs of several sizes on a lattice, moved by some pixels, with kernels of 128 numbers."""
    random = np.random.default_rng(0)
    rows, columns = np.ogrid[: size[0], : size[1]]
    side = math.sqrt(size[0] * size[1] / count)
    across = int(size[1] // side)
    places = np.stack(np.divmod(np.arange(count), across), axis=1)
    centres = (places + 0.5) * side + shift
    radii = random.uniform(0.3, 0.6, count) * side
    squares = [(rows - y) ** 2 + (columns - x) ** 2 for y, x in centres]
    masks = torch.from_numpy(np.stack([d < r**2 for d, r in zip(squares, radii, strict=True)]))
    found = Instances(size, pred_masks=masks, pred_boxes=Boxes(masks_to_boxes(masks)))
    found.scores = torch.full((count,), 0.9)
    found.pred_classes = torch.zeros(count, dtype=torch.long)
    found.pred_kernels = torch.from_numpy(random.normal(size=(count, 128)).astype(np.float32))
    return found


def measure_speed(count: int, size: tuple[int, int], repeats: int = 200) -> None:
    """Print the time of one frame of `count` objects, median and best of `repeats`."""
    tracker, frames, times = Tracker(), [crowd(count, size, shift) for shift in (0, 2)], []
    for number in range(repeats):
        begin = time.thread_time()
        tracker(frames[number % 2])
        times.append(1000 * (time.thread_time() - begin))
    median, best = statistics.median(times), min(times)
    shown = f"{len(tracker(frames[0]))} objects, {size[0]}x{size[1]}"
    print(f"{shown}: {median:.2f} ms of CPU time a frame (best {best:.2f})")


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", default="solo_d2/objects_lite0", metavar="CONFIG", help="%(default)s")
    add("--source", choices=("stamps", "shapes"), default="stamps", help="%(default)s")
    add("--films", type=int, default=8, metavar="N", help="default: 8")
    add("--frames", type=int, default=90, metavar="N", help="of a film (default: 90)")
    add("--objects", nargs=2, type=int, default=(8, 12), metavar=("LOW", "HIGH"), help="8 12")
    add("--seed", type=int, default=0, help="of the first film (default: 0)")
    add("--cache", metavar="DIR", default="output/tracking", help="for fetched images")
    add("--speed", action="store_true", help="only the time of the tracker, for 50 objects")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    args = make_parser().parse_args(argv)
    torch.set_num_threads(1)
    if args.speed:
        measure_speed(50, (480, 640))
        return 0
    low, high = args.objects
    options = FilmOptions(frames=args.frames, objects=(low, high))
    sprites = make_sprites(args.source, Path(args.cache), StampsSource(cache=args.cache))
    predictor = SOLOPredictor(args.config_file, confidence_threshold=0.1, kernels=True)
    results = []
    for number in range(args.films):
        results.append(run_film(sprites.film(options, args.seed + number, 0), predictor))
        rows: dict[str, Any] = {name: round(x[0], 1) for name, x in results[-1].items()}
        print(f"film {number}: HOTA {rows}", file=sys.stderr)
    show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
