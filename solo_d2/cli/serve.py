"""A model on a page to try it, and behind HTTP for programs (docs/serving.md).

    solo-d2 serve solo_d2/objects_lite0
    curl --data-binary @photo.jpg http://127.0.0.1:8000/predict
    curl --data-binary @photo.jpg 'http://127.0.0.1:8000/predict?output=overlay' > drawing.png

The server is for this machine alone unless --host says otherwise: it asks nobody for a password.
Ctrl-C or SIGTERM stop it when the requests that it has taken are answered.

Exit code: 0 stopped; 1 the address cannot be had; 2 a wrong argument, config or weights file, or a
missing package.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..engine.arguments import command_parser, parse_arguments

if TYPE_CHECKING:
    from ..serve import Limits

__all__ = ["main", "make_parser"]

_GRACE = 30
"""Seconds that requests have to end after the signal to stop."""

_MEGABYTE = 2**20


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("solo-d2 serve", __doc__, "MODEL [options]", "INPUT.MIN_SIZE_TEST 640")
    add = parser.add_argument
    add(
        "config_file",
        metavar="MODEL",
        help="model folder, config, model zoo name, hf://OWNER/NAME, or file of solo-d2 export",
    )
    add("--host", default="127.0.0.1", help='address (default: 127.0.0.1; "0.0.0.0" for all)')
    add("--port", type=int, default=8000, help="default: 8000; 0 takes a free one")
    add("--device", default="auto", help='"auto" (default), "cpu", "cuda", "cuda:1", ...')
    add(
        "--confidence-threshold",
        type=float,
        default=0.3,
        metavar="T",
        help="of requests that name none (default: 0.3)",
    )
    add("--class-names", metavar="FILE", help="COCO JSON, or a name a line")
    add(
        "--tiles",
        nargs="?",
        type=int,
        const=True,
        metavar="SIZE",
        help="look at large images through windows, see solo-d2 predict",
    )
    add("--max-waiting", type=int, default=32, metavar="N", help="requests at once (default: 32)")
    add("--max-megabytes", type=float, default=20, metavar="M", help="of an upload (default: 20)")
    add(
        "--max-megapixels",
        type=float,
        default=16,
        metavar="M",
        help="of an image (default: 16); the masks of an image may take this times "
        "TEST.DETECTIONS_PER_IMAGE",
    )
    parser.set_defaults(allow_partial=False, compile=False, track=None)
    return parser


def make_limits(args: argparse.Namespace) -> Limits:
    """Return the limits that the arguments ask for.

    Raises:
        ValueError: One is not positive, or the threshold is no score.
    """
    from ..io.image import MAX_PIXELS
    from ..serve import Limits

    for name in ("max_waiting", "max_megabytes", "max_megapixels"):
        if not getattr(args, name) > 0:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} must be positive, got {getattr(args, name)}")
    if not 0 <= args.confidence_threshold <= 1:
        raise ValueError(
            f"--confidence-threshold must be in [0, 1], got {args.confidence_threshold}"
        )
    return Limits(
        args.max_waiting,
        int(args.max_megabytes * _MEGABYTE),
        min(int(args.max_megapixels * 1e6), MAX_PIXELS),
    )


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens, so that a taken address is known before the model is loaded.

    Raises:
        ValueError: No port can have the number.
        OSError: The address cannot be had.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"--port must be in [0, 65535], got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        text = error.strerror or str(error)
        raise OSError(f"{host} port {port} cannot be had ({text}); try another --port") from error


def serve(args: argparse.Namespace) -> None:
    """Serve until a signal comes."""
    from ..export.packages import need

    for package in ("uvicorn", "starlette", "python_multipart"):
        need(package, "solo-d2 serve", "serve")
    import uvicorn

    from ..serve import make_app
    from .predict import make_predictor

    limits = make_limits(args)
    threshold, args.confidence_threshold = args.confidence_threshold, None
    with open_socket(args.host, args.port) as listener:
        port = listener.getsockname()[1]
        predictor = make_predictor(args, args.opts)
        local = args.host in ("127.0.0.1", "localhost", "::1")
        hosts = ("localhost", "127.0.0.1", "[::1]") if local else ("*",)
        app = make_app(predictor, limits, threshold=threshold, hosts=hosts)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            limit_concurrency=1000,
            timeout_graceful_shutdown=_GRACE,
        )
        host = f"[{args.host}]" if ":" in args.host else args.host
        print(f"http://{host}:{port} (Ctrl-C stops it)", flush=True)
        uvicorn.Server(config).run([listener])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    parser = make_parser()
    try:
        args = parse_arguments(argv, parser)
        from ..inference.interrupt import Interrupted, signals_as_interrupts  # not for --help

        # uvicorn raises the signal again when it has stopped.
        with contextlib.suppress(Interrupted), signals_as_interrupts():
            serve(args)
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0
