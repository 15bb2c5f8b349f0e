"""Cut-outs: size, place and edges after turning and resizing; random scenes."""

import numpy as np
import pytest

from solo_d2.data.scenes.cutouts import (
    Background,
    Crowding,
    Cutout,
    SceneOptions,
    sample_scene,
    sofi_options,
    transform_cutout,
)


def disc(side=101, category=0, colour=(200, 40, 40)):
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    rgba = np.zeros((side, side, 4), np.uint8)
    rgba[..., :3] = colour
    rgba[..., 3] = np.clip((side / 2 - np.hypot(x, y)) * 64, 0, 255)
    return Cutout.from_straight(rgba, category)


def bar(category=0):
    rgba = np.full((20, 80, 4), 255, np.uint8)
    return Cutout.from_straight(rgba, category)


def object_box(rgba):
    ys, xs = np.nonzero(rgba[..., 3] >= 0.5)
    return xs.max() - xs.min() + 1, ys.max() - ys.min() + 1


@pytest.mark.parametrize("size", [12, 30, 101, 160])
@pytest.mark.parametrize("angle", [0, 33, 90])
@pytest.mark.parametrize("make", [disc, bar])
def test_object_gets_the_wanted_size(make, angle, size):
    w, h = object_box(transform_cutout(make(), size, angle=angle))
    assert np.sqrt(w * h) == pytest.approx(size, abs=2)


def test_quarter_turn_swaps_width_and_height():
    w, h = object_box(transform_cutout(bar(), 40, angle=90))
    assert (w, h) == pytest.approx((20, 80), abs=2)


def test_turning_is_counter_clockwise():
    rgba = np.zeros((41, 41, 4), np.uint8)
    rgba[18:23, 18:] = 255  # an arm that points right
    turned = transform_cutout(Cutout(rgba, 0), 11, angle=90)
    w, h = object_box(turned)
    assert h > w
    rgba[:] = 0
    rgba[18:23, 18:] = 255
    rgba[10:31, 36:] = 255  # a head at its right end
    turned = transform_cutout(Cutout(rgba, 0), 22, angle=90)[..., 3]
    assert turned[:3].sum() > turned[-3:].sum()  # which ends up on top


def test_flip_mirrors_left_and_right():
    rgba = np.zeros((40, 60, 4), np.uint8)
    rgba[10:30, :30] = 255
    rgba[:, 30:] = 255
    plain = transform_cutout(Cutout(rgba, 0), 49)
    flipped = transform_cutout(Cutout(rgba, 0), 49, flip=True)
    np.testing.assert_allclose(flipped, plain[:, ::-1], atol=0.02)


def test_size_gives_way_to_the_largest_enlargement():
    w, h = object_box(transform_cutout(bar(), 400, max_upscale=2))
    assert (w, h) == pytest.approx((160, 40), abs=2)


def test_edges_have_no_halo_of_the_hidden_colour():
    # White inside, and green hidden below the transparent outside.
    rgba = np.zeros((60, 60, 4), np.uint8)
    rgba[..., 1] = 255
    rgba[20:40, 20:40] = 255
    out = transform_cutout(Cutout.from_straight(rgba, 0), 13.3, angle=20)
    np.testing.assert_allclose(out[..., :3], out[..., 3:].repeat(3, axis=2), atol=0.02)


def test_large_pictures_are_shrunk_to_the_longest_side():
    rgba = np.full((100, 1000, 4), 255, np.uint8)
    assert Cutout.from_straight(rgba, 0, max_side=200).rgba.shape == (20, 200, 4)


def test_transparent_pictures_are_refused():
    with pytest.raises(ValueError, match="fully transparent"):
        Cutout.from_straight(np.zeros((5, 5, 4), np.uint8), 0)
    faint = np.full((5, 5, 4), 60, np.uint8)
    with pytest.raises(ValueError, match="alpha of at least one half"):
        Cutout.from_straight(faint, 0)


def backgrounds():
    image = np.random.default_rng(0).integers(0, 255, (150, 210, 3), dtype=np.uint8)
    labels = np.full((150, 210), 2, np.uint8)
    labels[:75] = 1
    return [Background(image, labels)]


def test_same_generator_state_gives_the_same_scene():
    options = SceneOptions(height=96, width=128, min_pixels=10)
    library = [disc(category=0), bar(category=1)]
    first, again, other = (
        sample_scene(np.random.default_rng(s), library, backgrounds(), options) for s in (3, 3, 4)
    )
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.masks, again.masks)
    assert not np.array_equal(first.image, other.image)


def test_scenes_hold_the_visible_rule_and_the_stuff_of_their_background():
    options = SceneOptions(height=96, width=128, min_pixels=40)
    library = [disc(category=0), bar(category=1)]
    for seed in range(10):
        scene = sample_scene(np.random.default_rng(seed), library, backgrounds(), options)
        assert scene.image.shape == (96, 128, 3)
        assert scene.stuff.shape == (96, 128)
        assert set(np.unique(scene.stuff)) <= {1, 2}
        assert (scene.masks.sum(axis=(1, 2)) >= 40).all()


def test_scales_are_relative_to_the_short_side():
    kinds = (Crowding(1.0, (1, 1), (0.5, 0.5)),)
    options = SceneOptions(height=128, width=400, kinds=kinds)
    sizes = []
    for seed in range(20):
        scene = sample_scene(np.random.default_rng(seed), [disc()], backgrounds(), options)
        ys, xs = np.nonzero(scene.masks[0])
        sizes.append(max(np.ptp(xs), np.ptp(ys)) + 1)  # the longer side is rarely cut
    assert np.median(sizes) == pytest.approx(64, rel=0.12)


def test_sofi_scenes_show_a_few_objects_of_which_half_is_visible():
    options = sofi_options(80, 120)
    papers = [Background(np.full((90, 130, 3), 90, np.uint8), np.zeros((90, 130), np.uint8))]
    scenes = [
        sample_scene(np.random.default_rng(i), [disc(), bar()], papers, options) for i in range(30)
    ]
    counts = [len(scene.mattes) for scene in scenes]
    assert 1 <= min(counts) <= max(counts) <= 4
    assert np.mean(counts) >= 2
    for scene in scenes:
        assert (scene.masks.sum((1, 2)) >= 80 * 120 // 200).all()
