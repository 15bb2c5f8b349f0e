"""Facts about calibration: closed forms, and the same temperature here and in the model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from solo_d2.evaluation import calibration
from solo_d2.evaluation.calibration import TEMPERATURES, calibrate, measure_calibration
from solo_d2.modeling.postprocessing import InferenceSettings


def settings(temperature):
    return InferenceSettings(0.1, 0.5, 10, lambda *_: None, 0.05, 10, temperature)


def apply_temperature(scores, temperature):
    """Divide logits, in closed form; nearer than 1e-6 to 0 or 1 they are cut off."""
    scores = np.clip(scores, 1e-6, 1 - 1e-6)
    power = scores ** (1 / temperature)
    return power / (power + (1 - scores) ** (1 / temperature))


def drawn(temperature, count=200_000, seed=0):
    """Scores whose true share is that of their logits divided by a temperature."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.02, 0.98, count)
    return scores, rng.random(count) < apply_temperature(scores, temperature)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_of_drawn_detections_is_found(temperature):
    scores, true = drawn(temperature)
    found = calibrate(scores, true)
    assert found == pytest.approx(temperature, rel=0.03)
    assert measure_calibration(apply_temperature(scores, found), true).error < 0.01


def test_no_other_temperature_is_more_likely():
    scores, true = drawn(0.6, count=500)

    def likelihood(temperature):
        share = apply_temperature(scores, temperature)
        return np.log(np.where(true, share, 1 - share)).sum()

    found = calibrate(scores, true)
    assert likelihood(found) > max(likelihood(found * 1.01), likelihood(found / 1.01))


@pytest.mark.parametrize(("true", "expected"), [([False, True], 0), ([True, False], 1)])
def test_scores_that_tell_all_or_the_contrary_get_the_nearest_allowed(true, expected):
    found = calibrate(np.array([0.1, 0.9]), np.array(true))
    assert found == pytest.approx(TEMPERATURES[expected])


def test_no_detections_have_no_error_and_no_temperature():
    nothing = np.zeros(0)
    assert calibrate(nothing, nothing.astype(bool)) == 1.0
    found = measure_calibration(nothing, nothing.astype(bool))
    assert found.points == [] and math.isnan(found.error)


def test_a_score_of_one_is_in_the_last_bin():
    found = measure_calibration(np.array([1.0, 0.9]), np.array([True, True]))
    assert found.points == [(0.95, 1.0, 2)]


@pytest.mark.parametrize("temperature", [0.2, 0.7, 1.0, 5.0])
def test_the_model_reports_the_same_scores(temperature):
    scores = np.array([1e-5, 0.03, 0.5, 0.77, 1.0])
    reported = settings(temperature).reported(torch.tensor(scores)).numpy()
    assert (reported == calibration.apply_temperature(scores, temperature)).all()
    assert reported == pytest.approx(apply_temperature(scores, temperature), rel=1e-6, abs=1.1e-6)
    assert (np.diff(reported) > 0).all()


def test_no_score_stays_none_and_some_stays_some():
    reported = settings(0.2).reported(torch.tensor([0.0, 1e-12, 1.0]))
    assert reported[0] == 0 and reported[1] > 0 and reported[2] <= 1
    scores = torch.rand(5)
    assert settings(1.0).reported(scores) is scores
