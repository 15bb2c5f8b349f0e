"""Options of ``solo-d2 predict`` for films: identities, their files, and how objects are drawn."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..inference.collecting import ResultSink
    from ..inference.predictor import SOLOPredictor
    from ..inference.runner import InferenceRun
    from ..io.track_files import TrackFile
    from ..tracking import Tracker

__all__ = [
    "add_film_arguments",
    "check_film_arguments",
    "drawing_run",
    "make_tracker",
    "saving_tracks",
]

STYLES = ("masks", "outlines", "boxes", "cutout")
BIRTH_SCORE = 0.6


def add_film_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add(
        "--track",
        nargs="?",
        type=float,
        const=BIRTH_SCORE,
        metavar="SCORE",
        help="of films: number the objects, and follow each through the film; a number begins with "
        f"a score of at least SCORE ({BIRTH_SCORE}) and goes on from --confidence-threshold",
    )
    add(
        "--save-tracks",
        metavar="FILE",
        help="with --track: objects with their masks in all frames, as MOTS (.txt) or YouTube-VIS "
        "results (.json)",
    )
    add("--style", choices=STYLES, help=f"how objects are drawn (default: {STYLES[0]})")


def check_film_arguments(args: argparse.Namespace) -> None:
    """Raise a `ValueError` for options that cannot be used."""
    from ..io.paths import refuse_overwriting
    from ..io.track_files import track_kind

    if args.track is not None and not 0 <= args.track <= 1:
        raise ValueError(f"--track SCORE must lie in [0, 1], got {args.track}")
    if args.track is not None and args.input:
        raise ValueError("--track goes with films: --video-input or --webcam")
    if args.style is not None and args.no_draw:
        raise ValueError("--style is of drawings, and --no-draw makes none: leave one out")
    if args.save_tracks:
        if args.track is None:
            raise ValueError("--save-tracks needs --track")
        track_kind(args.save_tracks)
        names = ("video_input", "config_file", "weights", "class_names", "save_json", "background")
        files = [getattr(args, name, None) for name in names]
        refuse_overwriting([args.save_tracks], [x for x in files if x], "the tracks")


def drawing_run(args: argparse.Namespace, predictor: SOLOPredictor) -> InferenceRun:
    """Return a run that draws what a predictor finds."""
    from ..inference.renderers import DrawingRenderer
    from ..inference.runner import InferenceRun

    cfg = getattr(predictor, "cfg", None)
    if args.style is not None and _is_panoptic(cfg):
        raise ValueError("--style is for models of instances; this one is panoptic")
    renderer = DrawingRenderer.of(predictor.metadata, style=args.style or STYLES[0])
    tracker = make_tracker(args, cfg)
    return InferenceRun(predictor, draw=not args.no_draw, renderer=renderer, tracker=tracker)


def make_tracker(args: argparse.Namespace, cfg: Any) -> Tracker | None:
    """Return what numbers the objects, if it is asked for.

    Raises:
        ValueError: The model finds more than instances, or scipy is not installed.
    """
    if args.track is None:
        return None
    if _is_panoptic(cfg):
        raise ValueError("--track is for models of instances; this one is panoptic")
    try:
        from ..tracking import Tracker
    except ImportError as error:
        raise ValueError('--track needs: pip install "solo_d2[video]"') from error
    return Tracker(args.track)


def _is_panoptic(cfg: Any) -> bool:
    return cfg is not None and cfg.MODEL.META_ARCHITECTURE == "PanopticSOLO"


class _Both:
    """Hands results to two sinks."""

    def __init__(self, first: ResultSink | None, second: ResultSink) -> None:
        self._sinks = [sink for sink in (first, second) if sink is not None]

    def add(self, results: Sequence[dict[str, Any]], panoptic: dict[str, Any] | None) -> None:
        for sink in self._sinks:
            sink.add(results, panoptic)


@contextmanager
def saving_tracks(args: argparse.Namespace, run: InferenceRun) -> Iterator[None]:
    """Write ``--save-tracks`` of a run, and say where it is, whatever ends the run."""
    from ..io.track_files import track_file

    if not args.save_tracks:
        yield
        return
    file = track_file(args.save_tracks)
    run.sink = _Both(run.sink, file)
    whole = False
    try:
        yield
        whole = run.interrupted is None or run.live
    finally:
        _finish(args, run, file, whole)


def _finish(args: argparse.Namespace, run: InferenceRun, file: TrackFile, whole: bool) -> None:
    from ..io.paths import printable

    if not run.done:
        file.discard()
        return
    path = file.finish(whole=whole, frames=run.frames)
    if whole:
        print(f"tracks: {printable(args.save_tracks)}")
    else:
        print(f"the tracks so far: {printable(path)}", file=sys.stderr)
