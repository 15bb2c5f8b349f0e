"""Count the objects of a film that cross a line or enter a zone, with supervision.

pip install "solo_d2[video,supervision]"
python examples/count_objects.py film.mp4
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import supervision as sv

from solo_d2 import SOLOPredictor
from solo_d2.inference.prediction import Prediction
from solo_d2.io.video import open_frames
from solo_d2.tracking import Tracker


class Counts(NamedTuple):
    """What was counted.

    Attributes:
        rightwards: Objects that crossed the middle of the image from left to right.
        leftwards: The other way.
        lower_half: Objects that were in the lower half at some time.
    """

    rightwards: int
    leftwards: int
    lower_half: int


def count(source: str, predictor: Callable[[np.ndarray], Prediction]) -> Counts:
    """Count in a film.

    Args:
        source: A video file, a folder of frames, or a stream.
        predictor: Gives the instances of a frame.
    """
    tracker, line, zone, visitors = Tracker(), None, None, set()
    with open_frames(source) as frames:
        for frame in frames:
            height, width = frame.shape[:2]
            if line is None or zone is None:
                top, bottom = sv.Point(width // 2, height), sv.Point(width // 2, 0)
                line = sv.LineZone(top, bottom, triggering_anchors=[sv.Position.CENTER])
                half = [(0, height // 2), (width, height // 2), (width, height), (0, height)]
                zone = sv.PolygonZone(np.array(half), triggering_anchors=[sv.Position.CENTER])
            prediction = predictor(frame)
            prediction["instances"] = tracker(prediction["instances"])
            detections = prediction.to_supervision()
            line.trigger(detections)
            visitors.update(detections.tracker_id[zone.trigger(detections)].tolist())
    if line is None:
        return Counts(0, 0, 0)
    return Counts(line.in_count, line.out_count, len(visitors))


if __name__ == "__main__":
    MODEL = SOLOPredictor("solo_d2/objects_lite0", confidence_threshold=0.3, kernels=True)
    sys.stdout.write(f"{count(sys.argv[1], MODEL)}\n")
