"""Matting errors against closed forms and literal, slow versions of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from solo_d2.evaluation.matting_metrics import (
    METRICS,
    connectivity_error,
    gradient_error,
    matting_errors,
    sofi_errors,
    unknown_region,
)

EVERYWHERE = np.ones((20, 30), dtype=bool)


def soft_blob(center=(10, 15), radius=6, size=(20, 30), noise=0.0, seed=0):
    y, x = np.mgrid[: size[0], : size[1]]
    distance = np.hypot(y - center[0], x - center[1])
    blob = np.clip((radius - distance) / 3, 0, 1)
    blob += noise * np.random.default_rng(seed).standard_normal(size) * (blob > 0)
    return np.clip(blob, 0, 1).astype(np.float32)


def test_mse_and_sad_in_closed_form():
    """Off by 1/2 on 6 of 24 pixels."""
    target = np.zeros((4, 6))
    alpha = target.copy()
    alpha[:2, :3] = 0.5
    errors = matting_errors(alpha, target)
    assert errors["MSE"] == pytest.approx(6 * 0.25 / 24)
    assert errors["SAD"] == pytest.approx(6 * 0.5 / 1000)
    left = np.zeros((4, 6), dtype=bool)
    left[:, :2] = True
    errors = matting_errors(alpha, target, left)
    assert errors["MSE"] == pytest.approx(4 * 0.25 / 8)
    assert errors["SAD"] == pytest.approx(4 * 0.5 / 1000)


def test_a_perfect_matte_has_no_error():
    blob = soft_blob(noise=0.1)
    assert matting_errors(blob, blob) == dict.fromkeys(METRICS, 0.0)


def test_an_empty_region_is_no_error():
    nowhere = np.zeros((20, 30), dtype=bool)
    assert matting_errors(soft_blob(), 0 * soft_blob(), nowhere) == dict.fromkeys(METRICS, 0.0)


def test_gradient_of_a_ramp_in_closed_form():
    """A filter g(x) g'(x) of unit norm on a ramp of slope s answers s · Σg · Σx g'."""
    sigma, half = 1.4, 4
    x = np.arange(-half, half + 1)
    gauss = np.exp(-(x**2) / (2 * sigma**2))
    slope = -x * gauss
    norm = math.sqrt(float((np.outer(gauss, slope) ** 2).sum()))
    response = 0.02 * abs(float((x * slope).sum())) * float(gauss.sum()) / norm
    ramp = np.tile(0.02 * np.arange(30.0), (20, 1))
    inside = np.zeros((20, 30), dtype=bool)
    inside[:, half : 30 - half] = True
    error = gradient_error(ramp, np.zeros((20, 30)), inside)
    assert error == pytest.approx(inside.sum() * response**2 / 1000)
    # An offset has no gradient.
    assert gradient_error(ramp + 0.1, ramp, EVERYWHERE) == pytest.approx(0, abs=1e-12)


def slow_gradient_error(alpha, target):
    sigma, half = 1.4, 4
    x = np.arange(-half, half + 1)
    gauss = np.exp(-(x**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    kernel = np.outer(gauss, -x * gauss / sigma**2)
    kernel /= np.sqrt((kernel**2).sum())

    def magnitude(matte):
        along_x = ndimage.convolve(matte.astype(float), kernel, mode="nearest")
        along_y = ndimage.convolve(matte.astype(float), kernel.T, mode="nearest")
        return np.sqrt(along_x**2 + along_y**2)

    return ((magnitude(alpha) - magnitude(target)) ** 2).sum() / 1000


def slow_connectivity_error(alpha, target):
    """Pixel by pixel, as Rhemann et al. put it."""
    levels = [step / 10 for step in range(11)]
    plus = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    sources = []
    for level in levels[1:]:
        labels, count = ndimage.label((alpha >= level) & (target >= level), plus)
        areas = [int((labels == k).sum()) for k in range(1, count + 1)]
        sources.append(
            labels == 1 + int(np.argmax(areas)) if areas else np.zeros(alpha.shape, bool)
        )
    total = 0.0
    for place in np.ndindex(alpha.shape):
        highest = 1.0
        for level, source in zip(levels, sources, strict=False):  # source of the next level
            if not source[place]:
                highest = level
                break
        degrees = []
        for value in (float(alpha[place]), float(target[place])):
            distance = value - highest
            degrees.append(1 - (distance if distance >= 0.15 else 0.0))
        total += abs(degrees[0] - degrees[1])
    return total / 1000


@pytest.mark.parametrize("seed", range(3))
def test_gradient_and_connectivity_equal_their_slow_definitions(seed):
    target = soft_blob(noise=0.2, seed=seed)
    alpha = soft_blob((9, 17), 5, noise=0.3, seed=seed + 10)
    alpha[16:19, 2:6] = 0.9  # a loose piece
    target[1:4, 24:29] = 0.7
    assert gradient_error(alpha, target, EVERYWHERE) == pytest.approx(
        slow_gradient_error(alpha, target), rel=1e-6
    )
    expected = slow_connectivity_error(alpha, target)
    assert expected > 0
    assert connectivity_error(alpha, target, EVERYWHERE) == pytest.approx(expected, rel=1e-6)


def test_connectivity_counts_what_hangs_loose():
    """A loose opaque pixel is 1 above the level 0 that connects it: φ = 0 against φ = 1."""
    target = np.zeros((5, 9))
    target[1:4, 1:4] = 1.0
    alpha = target.copy()
    alpha[2, 7] = 1.0
    assert connectivity_error(alpha, target, np.ones((5, 9), bool)) == pytest.approx(1 / 1000)
    # Below the tolerance nothing hangs loose.
    alpha[2, 7] = 0.14
    assert connectivity_error(alpha, target, np.ones((5, 9), bool)) == 0
    alpha[2, 7] = 0.16
    assert connectivity_error(alpha, target, np.ones((5, 9), bool)) == pytest.approx(0.16 / 1000)


def test_unknown_region_holds_soft_pixels_and_both_sides_of_hard_edges():
    target = np.zeros((1, 20))
    target[0, 8:] = 1.0
    target[0, 15] = 0.5
    assert unknown_region(target, 0)[0].nonzero()[0].tolist() == [15]
    expected = [*range(6, 10), *range(13, 18)]  # two pixels around the edge and the soft pixel
    assert unknown_region(target, 2)[0].nonzero()[0].tolist() == expected
    assert not unknown_region(np.ones((4, 4)), 3).any()


@pytest.mark.parametrize(
    ("alpha", "target", "message"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5)), r"one shape, got \(4, 4\), \(4, 5\)"),
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4)), "divide 8-bit values by 255"),
        (np.full((4, 4), 255.0), np.zeros((4, 4)), r"alpha must lie in \[0, 1\]"),
        (np.zeros((4, 4)), np.full((4, 4), np.nan), r"target must lie in \[0, 1\]"),
        (np.zeros((1, 4, 4)), np.zeros((4, 4)), r"float array \(H, W\)"),
    ],
)
def test_what_is_no_matte_is_refused(alpha, target, message):
    with pytest.raises(ValueError, match=message):
        matting_errors(alpha, target)


def slow_sofi(predictions, targets, error):
    """Equation 10, literally."""
    nothing = [np.zeros((6, 5), np.float32)]
    total = 0.0
    if targets:
        total += sum(min(error(g, m) for m in predictions or nothing) for g in targets) / len(
            targets
        )
    if predictions:
        total += sum(min(error(g, m) for g in targets or nothing) for m in predictions) / len(
            predictions
        )
    return total


mattes = st.lists(
    st.lists(st.integers(0, 4), min_size=30, max_size=30).map(
        lambda values: (np.array(values, np.float64) / 4).reshape(6, 5)
    ),
    max_size=3,
)


@settings(max_examples=40, deadline=None)
@given(mattes, mattes)
def test_sofi_is_equation_10_for_any_number_of_mattes(predictions, targets):
    errors = sofi_errors(predictions, targets, (6, 5))
    assert errors["MSE"] == pytest.approx(
        slow_sofi(predictions, targets, lambda a, b: float(((a - b) ** 2).mean())), abs=1e-9
    )
    assert errors["SAD"] == pytest.approx(
        slow_sofi(predictions, targets, lambda a, b: float(np.abs(a - b).sum()) / 1000), abs=1e-9
    )
    # The order of instances does not matter, nor which side is called which.
    assert sofi_errors(predictions[::-1], targets, (6, 5)) == pytest.approx(errors)
    assert sofi_errors(targets, predictions, (6, 5)) == pytest.approx(errors)
    assert sofi_errors(targets, targets[::-1], (6, 5)) == {"MSE": 0.0, "SAD": 0.0}


def test_sofi_of_missed_and_invented_objects():
    """One object of 4 opaque pixels among 20, not found; or found where there is none."""
    matte = np.zeros((4, 5), np.float32)
    matte[:2, :2] = 1
    assert sofi_errors([], [matte], (4, 5)) == pytest.approx({"MSE": 4 / 20, "SAD": 4 / 1000})
    assert sofi_errors([matte], [], (4, 5)) == pytest.approx({"MSE": 4 / 20, "SAD": 4 / 1000})
    assert sofi_errors([], [], (4, 5)) == {"MSE": 0.0, "SAD": 0.0}
    # Found, and one invented beside it: only the second mean has an error, 8 / 2 pixels.
    other = 1 - matte
    invented = sofi_errors([matte, other * 0.5], [matte], (4, 5))
    assert invented["SAD"] == pytest.approx((4 + 16 * 0.5) / 2 / 1000)
