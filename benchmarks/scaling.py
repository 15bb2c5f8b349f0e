"""Model how training speeds up to 256 GPUs: a table from a few figures, each an argument.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --images 2 --step-ms 45 --backward-ms 14 --network-gbps 100

Nothing is run. One GPU computes `--images` images in `--step-ms`. Processes then wait for the
slowest of them, add up the gradients, most of it while the backward pass still computes, and agree
on one number (of positive cells).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

GPUS_PER_MACHINE = 8
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LAST_BUCKET = 25 * 2**20
"""Bytes of DDP's last bucket: nothing is left to compute while it is exchanged."""


class Costs(NamedTuple):
    """What a step costs.

    Attributes:
        images: of one GPU in a step.
        step: seconds of one GPU alone.
        backward: seconds of these in which gradients come out.
        spread: standard deviation of a step, as a share; images have different sizes and objects.
        gradients: bytes.
        link: bytes a second between the GPUs of a machine, of each.
        network: bytes a second between machines, of each machine.
        latency: seconds of a message.
    """

    images: int
    step: float
    backward: float
    spread: float
    gradients: float
    link: float
    network: float
    latency: float

    def exchange(self, gpus: int, size: float) -> float:
        """Return the seconds in which `gpus` add up `size` bytes, within machines and between."""
        near = min(gpus, GPUS_PER_MACHINE)
        machines = math.ceil(gpus / GPUS_PER_MACHINE)
        time = 2 * (near - 1) / near * size / self.link
        time += 2 * (machines - 1) / machines * size / self.network
        return time + 2 * math.log2(gpus) * self.latency

    def slowest(self, gpus: int) -> float:
        """Return the expected seconds of the slowest of `gpus`, of normally distributed steps."""
        return self.step * (1 + self.spread * expected_maximum(gpus))

    def step_of(self, gpus: int) -> float:
        """Return the seconds of a step of `gpus`."""
        if gpus == 1:
            return self.step
        last = min(LAST_BUCKET, self.gradients)
        hidden = max(0.0, self.exchange(gpus, self.gradients - last) - self.backward)
        count = self.exchange(gpus, 4)
        return self.slowest(gpus) + hidden + self.exchange(gpus, last) + count

    def rows(self) -> list[tuple[int, float, float, float]]:
        """Return GPUs, milliseconds of a step, images a second, and efficiency in percent."""
        alone = self.images / self.step
        return [
            (n, 1e3 * self.step_of(n), n * self.images / self.step_of(n),
             100 * self.images / self.step_of(n) / alone)
            for n in COUNTS
        ]  # fmt: skip


def expected_maximum(count: int) -> float:
    """Return the expected largest of `count` standard normal numbers (Blom's approximation)."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def table(costs: Costs) -> str:
    """Return the rows as Markdown."""
    head = "| GPUs | ms a step | images/s | efficiency |\n|---:|---:|---:|---:|"
    lines = [
        f"| {n} | {ms:.0f} | {speed:.0f} | {share:.0f} % |" for n, ms, speed, share in costs.rows()
    ]
    return "\n".join([head, *lines])


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", type=int, default=4, help="of one GPU in a step (default: 4)")
    add("--step-ms", type=float, default=75, help="of one GPU alone (default: 75)")
    add("--backward-ms", type=float, default=25.5, help="of these (default: 25.5)")
    add("--spread", type=float, default=0.05, help="of a step, as a share (default: 0.05)")
    add("--parameters", type=float, default=46.3, help="trained, in millions (default: 46.3)")
    add("--link-gbyte", type=float, default=300, help="GB/s between GPUs (default: 300)")
    add("--network-gbps", type=float, default=400, help="Gbit/s of a machine (default: 400)")
    add("--latency-us", type=float, default=20, help="of a message (default: 20)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    args = make_parser().parse_args(argv)
    costs = Costs(
        images=args.images,
        step=args.step_ms / 1e3,
        backward=args.backward_ms / 1e3,
        spread=args.spread,
        gradients=4e6 * args.parameters,
        link=1e9 * args.link_gbyte,
        network=1e9 / 8 * args.network_gbps,
        latency=args.latency_us / 1e6,
    )
    print(table(costs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
