"""Objects measured by their annotations."""

from __future__ import annotations

import numpy as np
import pytest
from check_builders import objects_of, records_of, rectangle

from solo_d2.check.measure import measure_objects
from solo_d2.io.segmentation import encode_mask


def bitmap(box, size=(64, 64)):
    mask = np.zeros(size, bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


@pytest.mark.parametrize("form", [lambda x: x, encode_mask])
def test_polygons_runs_and_bitmaps_have_the_same_measures(form):
    box = (4, 8, 20, 12)
    other = rectangle(box, segmentation=form(bitmap(box)))
    objects = objects_of([], [box, other])
    assert objects.images.tolist() == [1, 1] and objects.per_image.tolist() == [0, 2]
    assert objects.areas.tolist() == [64, 64]
    assert objects.boxes.tolist() == [list(box)] * 2 == objects.stated.tolist()
    assert objects.centers.tolist() == [[11.5, 9.5]] * 2
    assert objects.digests[0] == objects.digests[1]


def test_crowds_are_no_objects_and_what_cannot_be_used_is_told():
    crowd = rectangle((0, 0, 9, 9), iscrowd=1)
    wrong = rectangle((0, 0, 9, 9), segmentation=None)
    objects = objects_of([crowd, wrong, (1, 1, 5, 5)])
    assert (len(objects), objects.crowds) == (1, 1)
    assert len(objects.problems) == 1 and objects.problems[0].startswith("1.png: ")


def test_processes_measure_as_one_does():
    records = records_of(*([(k % 50, 3, k % 50 + 7, 9 + k % 3)] for k in range(1100)))
    steps = []
    alone = measure_objects(records, workers=1, step=steps.append)
    many = measure_objects(records, workers=2)
    assert sum(steps) == 1100
    for name in ("images", "areas", "boxes", "centers", "digests"):
        assert np.array_equal(getattr(alone, name), getattr(many, name)), name


def test_objects_of_some_images_are_counted_anew():
    objects = objects_of([(0, 0, 4, 4)], [], [(0, 0, 8, 8), (1, 1, 3, 3)])
    some = objects.of_images(np.array([1, 2]))
    assert some.per_image.tolist() == [0, 2] and some.areas.tolist() == [64, 4]


def test_a_record_without_a_size_is_refused():
    with pytest.raises(ValueError, match="'height' or 'width'"):
        measure_objects([{"file_name": "a.png", "annotations": []}])
