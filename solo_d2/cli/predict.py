"""Instance masks of images, a video or a camera.

    solo-d2 predict --config-file NAME_OR_YAML --weights FILE --input PATHS... --output DIR
    solo-d2 predict --config-file NAME_OR_YAML --video-input in.mp4 --output out.mp4
    solo-d2 predict --config-file NAME_OR_YAML --webcam

Exit code: 0 all done; 1 some input could not be used (one line names each), or an output could not
be written to its end; 2 nothing to do, or a wrong argument, config or weights file; 130, 143 after
Ctrl-C and SIGTERM.

Outputs grow beside their place, as NAME.partial-ID.EXT, and replace an older file when they are
whole. Whatever ends the run, results and video so far can be used: at their place if there was
no older file, otherwise where the last line says.
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.arguments import command_parser, parse_arguments
from .films import add_film_arguments, check_film_arguments, drawing_run, saving_tracks
from .saving import add_save_arguments, check_save_arguments, saving
from .sharding import add_shard_arguments, check_shard_arguments, predict_shards

if TYPE_CHECKING:
    from ..export import ExportedModel
    from ..inference.predictor import SOLOPredictor
    from ..inference.runner import InferenceRun
    from ..io.results_file import ResultsFile

__all__ = ["main", "make_parser", "make_predictor"]

DEFAULT_OUTPUT = "output/predictions"


def make_parser(prog: str = "solo-d2 predict") -> argparse.ArgumentParser:
    """Return the parser of the command line, which leaves config overrides to others."""
    parser = command_parser(prog, __doc__, "[options]", "INPUT.MIN_SIZE_TEST 640")
    add = parser.add_argument
    add(
        "--config-file",
        required=True,
        metavar="CONFIG",
        help="YAML file, model folder, model zoo name, or hf://OWNER/NAME on the Hub; or a file "
        "of solo-d2 export",
    )
    add(
        "--allow-partial",
        action="store_true",
        help="load what fits of the weights; the rest is random",
    )
    _add_inputs(parser)
    add(
        "--output",
        metavar="PATH",
        help="folder, or for one image or a video a file (default: "
        f"{DEFAULT_OUTPUT}; a window for a camera)",
    )
    add("--confidence-threshold", type=float, default=0.3, metavar="T", help="default: 0.3")
    add("--device", default="auto", help='"auto" (default), "cpu", "cuda", "cuda:1", ...')
    add(
        "--save-json",
        metavar="FILE",
        help="write COCO results with RLE masks, image by image; a name with .jsonl has a line "
        "for each instead of one list; of panoptic models see docs/panoptic.md",
    )
    add("--batch-size", type=int, default=1, metavar="N", help="images at once (default: 1)")
    _add_ways(parser)
    add_film_arguments(parser)
    add_save_arguments(parser)
    add("--no-draw", action="store_true", help="write no drawings, only the files of --save...")
    _add_names(parser)
    add_shard_arguments(parser)
    return parser


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input",
        nargs="+",
        metavar="PATH",
        help='images, folders of images, or quoted globs ("**" goes into subfolders)',
    )
    source.add_argument(
        "--video-input",
        metavar="FILE",
        help="a video file, a folder of frames, or the address of a stream (http, https, rtsp)",
    )
    source.add_argument(
        "--webcam", nargs="?", type=int, const=0, metavar="N", help="camera number (default: 0)"
    )


def _add_ways(parser: argparse.ArgumentParser) -> None:
    """Add the options of how the model runs."""
    add = parser.add_argument
    add(
        "--tiles",
        nargs="?",
        type=int,
        const=True,
        metavar="SIZE",
        help="for images of thousands of pixels: look at them through windows of SIZE pixels "
        "(default: INPUT.MIN_SIZE_TEST), and through larger ones for large objects; "
        "TEST.TILES.DETECTIONS_PER_IMAGE limits what is found",
    )
    add("--compile", action="store_true", help="replay CUDA graphs, recorded for every input size")
    fuse = "--compile with fused kernels, which are written in a minute for every size"
    add("--fuse", dest="compile", action="store_const", const="fuse", help=fuse)


def _add_names(parser: argparse.ArgumentParser) -> None:
    """Add the options of names and ids."""
    add = parser.add_argument
    add(
        "--class-names",
        metavar="FILE",
        help="names other than those that the weights bring along: COCO JSON, whose category ids "
        "count, too, or one a line",
    )
    add(
        "--ids",
        "--image-ids",
        metavar="FILE",
        help="COCO JSON whose image ids (by file name) and category ids (by class name) "
        "--save-json writes, so that COCO.loadRes of that file accepts it; without it image ids "
        "count from 1, frames of a video from 0, and category ids are those that the weights bring "
        "along, or labels from 0",
    )


def make_predictor(args: argparse.Namespace, overrides: Sequence[str]) -> SOLOPredictor:
    """Return the predictor that the arguments ask for."""
    from ..inference.class_names import read_class_names
    from ..inference.predictor import SOLOPredictor
    from ..inference.trained import load_trained
    from ..io.paths import printable
    from ..io.plugins import import_plugins
    from ..model_zoo.model_zoo import load_config

    import_plugins(args.imports)
    model = load_model(args.config_file, args.weights)
    if model is not None:
        cfg, weights = load_config(model.cfg, overrides), None
        model.check_config(cfg)
    else:
        cfg, weights = load_trained(args.config_file, overrides, args.weights)
    if weights is not None and args.weights is None:
        print(f"weights: {printable(weights)}")
    names = read_class_names(args.class_names) if args.class_names else None
    return SOLOPredictor(
        cfg,
        weights=weights,
        model=model,
        allow_partial=args.allow_partial,
        device=args.device,
        confidence_threshold=args.confidence_threshold,
        class_names=None if names is None else names.things,
        stuff_names=(names and names.stuff) or None,
        category_ids=None if names is None else names.thing_ids,
        stuff_category_ids=None if names is None else names.stuff_ids,
        tiles=args.tiles,
        compile=args.compile,
        kernels=args.track is not None,
    )


def load_model(config_file: str, weights: str | None) -> ExportedModel | None:
    """Return the exported model that is named in place of a config, if it is one."""
    from ..export import is_exported, load_exported

    if not is_exported(config_file):
        return None
    if weights is not None:
        raise ValueError(f"{config_file} has its own weights: leave --weights out")
    return load_exported(config_file)


PredictorMaker = Callable[[argparse.Namespace, Sequence[str]], "SOLOPredictor"]
RunMaker = Callable[[argparse.Namespace, Sequence[str]], "InferenceRun"]
Job = Callable[["InferenceRun"], None]


def make_run(
    args: argparse.Namespace,
    overrides: Sequence[str],
    make_predictor: PredictorMaker = make_predictor,
) -> InferenceRun:
    """Return the run that the arguments ask for."""
    return drawing_run(args, make_predictor(args, overrides))


def plan_images(args: argparse.Namespace) -> Job:
    """`--input`: the images that match; what can be wrong is found before the model is built."""
    from ..inference.dataset_ids import DatasetIds
    from ..inference.inputs import find_images
    from ..inference.outputs import output_paths

    files, problems = find_images(args.input)
    if not files:
        raise ValueError(" ".join(problems))
    if args.batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, got {args.batch_size}.")
    if args.ids and not args.save_json:
        raise ValueError("--ids without --save-json leaves nothing to do.")
    ids = DatasetIds(args.ids) if args.ids else None
    image_ids = None if ids is None else ids.images(files)
    targets = files if args.no_draw else output_paths(files, args.output or DEFAULT_OUTPUT)
    check_outputs(args, files, [] if args.no_draw else targets)

    def job(run: InferenceRun) -> None:
        if ids is not None:
            run.use_category_ids(ids)
        for problem in problems:
            run.fail(problem)
        run.images(files, targets, batch_size=args.batch_size, image_ids=image_ids)

    return job


def plan_video(args: argparse.Namespace) -> Job:
    """`--video-input` or `--webcam`: a window for a camera without `--output`, else a file."""
    from ..inference.outputs import video_path
    from ..inference.runner import show_in_window

    if args.ids:
        raise ValueError("--ids goes with --input: frames have no ids in a COCO file.")
    source = args.webcam if args.video_input is None else args.video_input
    window = args.video_input is None and args.output is None
    output = None if window else video_path(source, args.output or DEFAULT_OUTPUT)
    check_outputs(args, [args.video_input], [] if output is None else [output])
    return lambda run: run.video(source, output, show=show_in_window if window else None)


def check_outputs(
    args: argparse.Namespace, inputs: Sequence[str | Path | None], outputs: Sequence[Path]
) -> None:
    """Refuse outputs that some other file would be lost to, or that cannot be written."""
    from ..inference.outputs import check_results_file
    from ..io.paths import refuse_overwriting

    # The last one is of matting.py.
    names = ("config_file", "weights", "class_names", "ids", "background")
    beside = [path for name in names if (path := getattr(args, name, None)) is not None]
    refuse_overwriting(outputs, beside)
    if args.save_json:
        check_results_file(args.save_json, [*inputs, *beside], outputs)
    elif args.no_draw and not (args.save or args.save_tracks):
        raise ValueError("--no-draw without --save-json or --save leaves nothing to do.")


def work(args: argparse.Namespace, overrides: Sequence[str], make_run: RunMaker) -> int:
    """Run the job; returns the exit code."""
    from ..inference.interrupt import Interrupted
    from ..io.paths import printable
    from ..io.results_file import ResultsFile

    check_film_arguments(args)
    check_shard_arguments(args)
    if args.shards:
        return predict_shards(args, overrides, make_run)
    job = plan_images(args) if args.input else plan_video(args)
    folders = check_save_arguments(args, args.output or DEFAULT_OUTPUT)
    run = make_run(args, overrides)
    results = ResultsFile(args.save_json) if args.save_json else None
    run.sink = results
    whole = False
    try:
        with saving(run, folders, args.tolerance), saving_tracks(args, run):
            job(run)
        whole = run.interrupted is None or run.live
    finally:
        finish_results(args, run, results, whole)
        if run.video_file is not None and not whole:
            print(f"the video so far: {printable(run.video_file)}", file=sys.stderr)
    print(f"{run.found} instances found, {len(run.failures)} inputs skipped")
    if run.frames:
        print(f"{run.frames} frames, {run.frame_rate:.1f} per second")
    if not args.no_draw and (args.input or args.video_input or args.output):
        print(f"images: {printable(run.folder or args.output or DEFAULT_OUTPUT)}")
    if isinstance(run.interrupted, Interrupted):
        return run.interrupted.exit_code
    return 1 if run.failures else 0


def finish_results(
    args: argparse.Namespace, run: InferenceRun, results: ResultsFile | None, whole: bool
) -> None:
    """Finish `--save-json`, and say where it is."""
    from ..io.paths import printable

    if results is None:
        return
    if not run.done:
        results.discard()
        return
    path = results.finish(whole=whole)
    if whole:
        print(f"results: {printable(args.save_json)}")
    else:
        print(f"the results so far: {printable(path)}", file=sys.stderr)


def main(
    argv: Sequence[str] | None = None,
    make_parser: Callable[[], argparse.ArgumentParser] = make_parser,
    make_run: RunMaker = make_run,
) -> int:
    """Run the command line; returns the exit code.

    Another command that does something else with what is found gives its own parser, with these
    options and more, and its own run.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that lacks a character of a name
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = make_parser()
    try:
        args = parse_arguments(argv, parser)
    except ValueError as error:
        return complain(parser.prog, str(error), 2)
    from ..inference.interrupt import Interrupted, signals_as_interrupts

    try:
        with signals_as_interrupts():
            return work(args, args.opts, make_run)
    except Interrupted as stop:  # before the first image
        return complain(parser.prog, f"interrupted ({stop})", stop.exit_code)
    except ValueError as error:
        return complain(parser.prog, str(error), 2)
    except Exception as error:
        logging.getLogger(__name__).debug("failed", exc_info=True)
        text = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        return complain(parser.prog, text, 1)


def complain(program: str, text: str, code: int) -> int:
    """Say in one line on stderr why the command ends; returns the exit code."""
    print(f"{program}: {' '.join(text.split())}", file=sys.stderr)
    return code
