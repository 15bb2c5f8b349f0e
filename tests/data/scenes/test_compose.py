"""Layered scenes: what is seen of each layer, and which layers are left out."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from solo_d2.data.scenes.compose import Layer, Matte, compose


def square(side, x, y, alpha=1.0, colour=(1.0, 0.0, 0.0), category=0):
    rgba = np.empty((side, side, 4), np.float32)
    rgba[..., :3] = np.array(colour) * alpha
    rgba[..., 3] = alpha
    return Layer(rgba, x, y, category)


def grey(height, width, value=100):
    return np.full((height, width, 3), value, np.uint8)


def random_layers(seed, count, height, width):
    rng = np.random.default_rng(seed)
    layers = []
    for _ in range(count):
        h, w = rng.integers(2, 12, 2)
        rgba = rng.random((h, w, 4)).astype(np.float32)
        rgba[..., :3] *= rgba[..., 3:]
        x, y = int(rng.integers(-4, width)), int(rng.integers(-4, height))
        layers.append(Layer(rgba, x, y, int(rng.integers(3))))
    return layers


def alpha_over(background, layers):
    """Slow reference, pixel by pixel: (image in [0, 1], visible alphas (K, H, W))."""
    height, width = background.shape[:2]
    image = background / 255.0
    visible = np.zeros((len(layers), height, width))
    for k, layer in enumerate(layers):
        for i in range(layer.rgba.shape[0]):
            for j in range(layer.rgba.shape[1]):
                y, x = layer.y + i, layer.x + j
                if not (0 <= y < height and 0 <= x < width):
                    continue
                alpha = layer.rgba[i, j, 3]
                image[y, x] = layer.rgba[i, j, :3] + (1 - alpha) * image[y, x]
                visible[:k, y, x] *= 1 - alpha
                visible[k, y, x] = alpha
    return image, visible


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 6))
def test_composite_and_visible_alphas_are_those_of_alpha_over(seed, count):
    height, width = 14, 17
    layers = random_layers(seed, count, height, width)
    scene = compose(grey(height, width), layers, min_visible=0, min_pixels=0)
    inside = [
        k for k in layers if -k.rgba.shape[1] < k.x < width and -k.rgba.shape[0] < k.y < height
    ]
    image, visible = alpha_over(grey(height, width), inside)
    assert np.abs(scene.image - 255 * image).max() <= 0.51  # rounding
    assert len(scene.mattes) == len(inside)
    for matte, expected in zip(scene.mattes, visible, strict=True):
        np.testing.assert_allclose(matte.on_canvas(height, width), expected, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_visible_alphas_sum_to_one_at_most_and_masks_overlap_at_ties_only(seed):
    scene = compose(grey(20, 20), random_layers(seed, 8, 20, 20), min_visible=0, min_pixels=0)
    total = sum((m.on_canvas(20, 20) for m in scene.mattes), np.zeros((20, 20)))
    assert total.max(initial=0) <= 1 + 1e-5
    assert scene.masks.sum(axis=0).max(initial=0) <= 1


def test_half_transparent_layer_halves_what_is_below():
    scene = compose(grey(8, 8, 0), [square(8, 0, 0), square(8, 0, 0, 0.5, (0, 0, 1))])
    np.testing.assert_allclose(scene.mattes[0].alpha, 0.5)
    assert scene.image[0, 0].tolist() == [128, 0, 128]  # rint(127.5) is even


def test_layer_that_sticks_out_keeps_its_place():
    scene = compose(grey(10, 10), [square(10, -4, 3)], min_pixels=1)
    matte = scene.mattes[0]
    assert (matte.x, matte.y, matte.alpha.shape) == (0, 3, (7, 6))
    assert scene.masks[0].sum() == 42


def test_layer_is_kept_at_exactly_the_visible_fraction_and_left_out_below_it():
    # 10 x 10 square: three columns inside of the canvas are 0.3 of it, two are 0.2.
    kept = compose(grey(20, 20), [square(10, -7, 0)], min_visible=0.3, min_pixels=30)
    assert len(kept.mattes) == 1
    out = compose(grey(20, 20), [square(10, -8, 0)], min_visible=0.3, min_pixels=1)
    assert len(out.mattes) == 0


def test_layer_is_kept_at_exactly_the_pixel_count_and_left_out_below_it():
    assert len(compose(grey(20, 20), [square(5, 0, 0)], min_pixels=25).mattes) == 1
    assert len(compose(grey(20, 20), [square(5, 0, 0)], min_pixels=26).mattes) == 0


def test_layer_that_hides_another_too_much_is_left_out_and_changes_nothing():
    below = square(10, 0, 0, category=1)
    for hidden, kept in ((7, 2), (8, 1)):  # 0.3 and 0.2 of the lower one stay visible
        above = square(10, hidden - 10, 0, category=2)
        scene = compose(grey(20, 20), [below, above], min_visible=0.3, min_pixels=1)
        assert len(scene.mattes) == kept
    above = square(12, 0, 0, colour=(0, 1, 0), category=2)
    alone, both = compose(grey(20, 20), [below]), compose(grey(20, 20), [below, above])
    np.testing.assert_array_equal(alone.image, both.image)
    assert both.categories.tolist() == [1]
    np.testing.assert_array_equal(both.mattes[0].alpha, 1)


def test_no_layer_gives_the_background():
    scene = compose(grey(5, 6), [])
    np.testing.assert_array_equal(scene.image, grey(5, 6))
    assert scene.masks.shape == (0, 5, 6)
    assert scene.categories.shape == (0,)


def test_layer_outside_of_the_canvas_is_left_out():
    layers = [square(4, 10, 0), square(4, -4, 0), square(4, 0, 10), square(4, 0, -4)]
    assert compose(grey(10, 10), layers, min_visible=0, min_pixels=0).mattes == []


def test_matte_on_canvas_is_zero_elsewhere():
    canvas = Matte(np.ones((2, 3), np.float32), 4, 1).on_canvas(5, 8)
    assert canvas.sum() == 6
    assert canvas[1:3, 4:7].all()
