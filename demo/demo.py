"""Instance masks of pictures, a video or a camera.

    python demo/demo.py --config-file NAME_OR_YAML --weights FILE --input PATHS... --output DIR
    python demo/demo.py --config-file NAME_OR_YAML --video-input in.mp4 --output out.mp4
    python demo/demo.py --config-file NAME_OR_YAML --webcam

Exit code: 0 all done; 1 some input could not be used (one line names each), the rest is done;
2 nothing to do, or a wrong argument, config or weights file.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from solo_d2.inference.cli import (
    find_images,
    load_class_names,
    load_stuff_names,
    output_paths,
    split_overrides,
)
from solo_d2.inference.predictor import SOLOPredictor
from solo_d2.inference.runner import InferenceRun, show_in_window
from solo_d2.io.results import save_json
from solo_d2.model_zoo.model_zoo import load_config

DEFAULT_OUTPUT = "output/predictions"


def make_parser() -> argparse.ArgumentParser:
    """All options but the trailing config overrides, which `split_overrides` cuts off first."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options] [KEY VALUE ...]",
        epilog="KEY VALUE ... at the end override the config, such as INPUT.MIN_SIZE_TEST 640",
    )
    add = parser.add_argument
    add("--config-file", required=True, metavar="CONFIG", help="YAML file or model zoo name")
    add("--weights", metavar="FILE", help="checkpoint instead of the config's MODEL.WEIGHTS")
    add(
        "--allow-partial",
        action="store_true",
        help="load what fits of the weights; the rest is random",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input",
        nargs="+",
        metavar="PATH",
        help='pictures, folders of pictures, or quoted globs ("**" goes into subfolders)',
    )
    source.add_argument("--video-input", metavar="FILE", help="a video file")
    source.add_argument(
        "--webcam", nargs="?", type=int, const=0, metavar="N", help="camera number (default: 0)"
    )
    add(
        "--output",
        metavar="PATH",
        help="folder, or for one picture or a video a file (default: "
        f"{DEFAULT_OUTPUT}; a window for a camera)",
    )
    add("--confidence-threshold", type=float, default=0.3, metavar="T", help="default: 0.3")
    add("--device", default="auto", help='"auto" (default), "cpu", "cuda", "cuda:1", ...')
    add("--save-json", metavar="FILE", help="write COCO results with RLE masks; docs/panoptic.md")
    add("--batch-size", type=int, default=1, metavar="N", help="pictures at once (default: 1)")
    add("--no-draw", action="store_true", help="write no pictures, only --save-json")
    add(
        "--class-names",
        metavar="FILE",
        help="names other than those that the weights bring along: COCO JSON, or one a line",
    )
    return parser


def make_predictor(args: argparse.Namespace, overrides: Sequence[str]) -> SOLOPredictor:
    """The model that the arguments ask for."""
    cfg = load_config(args.config_file, overrides, trained=args.weights is None)
    return SOLOPredictor(
        cfg,
        weights=args.weights,
        allow_partial=args.allow_partial,
        device=args.device,
        confidence_threshold=args.confidence_threshold,
        class_names=load_class_names(args.class_names) if args.class_names else None,
        stuff_names=load_stuff_names(args.class_names) if args.class_names else None,
    )


def make_run(args: argparse.Namespace, overrides: Sequence[str]) -> InferenceRun:
    """The predictor and the options of the run."""
    return InferenceRun(make_predictor(args, overrides), draw=not args.no_draw)


RunMaker = Callable[[argparse.Namespace, Sequence[str]], InferenceRun]


def run_images(
    args: argparse.Namespace, overrides: Sequence[str], make_run: RunMaker
) -> InferenceRun:
    """`--input`: the pictures that match."""
    files, problems = find_images(args.input)
    if not files:  # before the model is built
        raise ValueError(" ".join(problems))
    targets = output_paths(files, Path(args.output or DEFAULT_OUTPUT))
    run = make_run(args, overrides)
    for problem in problems:
        run.fail(problem)
    run.images(files, targets, batch_size=args.batch_size)
    return run


def run_video(
    args: argparse.Namespace, overrides: Sequence[str], make_run: RunMaker
) -> InferenceRun:
    """`--video-input` or `--webcam`: a window for a camera without `--output`, else a file."""
    camera = args.video_input is None
    source = args.webcam if camera else args.video_input
    if camera and args.output is None:
        run = make_run(args, overrides)
        run.video(source, show=show_in_window)
        return run
    output = Path(args.output or DEFAULT_OUTPUT)
    if output.suffix.lower() != ".mp4":
        output /= f"camera_{source}.mp4" if camera else f"{Path(source).stem}.mp4"
    if not camera and output.resolve() == Path(source).resolve():
        raise ValueError(f"{output}: is the input itself. Name another --output.")
    run = make_run(args, overrides)
    run.video(source, output)
    return run


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
    parser = make_parser()
    try:
        arguments, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
        args = parser.parse_args(arguments)
        if args.no_draw and not args.save_json:
            raise ValueError("--no-draw without --save-json leaves nothing to do.")
        run = (run_images if args.input else run_video)(args, overrides, make_run)
        if args.save_json:
            save_json(args.save_json, run.content)
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"{len(run.results)} instances found, {len(run.failures)} inputs skipped")
    if args.save_json:
        print(f"results: {args.save_json}")
    if not args.no_draw and (args.input or args.video_input or args.output):
        print(f"pictures: {args.output or DEFAULT_OUTPUT}")
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
