import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solo_d2 import model_zoo
from solo_d2.engine.schedule import plan_schedule

COCO_1X = model_zoo.get_config("COCO-InstanceSegmentation/solov2_R_50_FPN_1x.yaml")
LITE0 = model_zoo.get_config("Stamps/solov2_lite0.yaml")


def test_eight_images_are_a_hundred_iterations_of_four():
    plan = plan_schedule(COCO_1X, 8, 50, batch_size=4)
    assert (plan.iterations, plan.period, plan.warmup) == (100, 10, 10)
    assert plan.base_lr == pytest.approx(0.01 * 4 / 16)
    assert plan.steps == (67, 89)  # 60 and 80 of 90 thousand
    assert str(plan) == (
        "8 images x 50 epochs / batch of 4 = 100 iterations, learning rate 0.0025, "
        "evaluated every 10"
    )


def test_the_papers_own_schedule_comes_back():
    plan = plan_schedule(COCO_1X, 117266, 90000 * 16 / 117266)
    assert (plan.iterations, plan.base_lr, plan.warmup) == (90000, 0.01, 1000)
    assert plan.steps == (60000, 80000)


def test_adamw_scales_by_the_square_root_and_has_no_drops():
    plan = plan_schedule(LITE0, 100, 4, batch_size=16)
    assert plan.base_lr == pytest.approx(LITE0.SOLVER.BASE_LR * 2)
    assert plan.steps == ()


def test_fewer_images_than_the_batch_make_the_batch():
    assert plan_schedule(COCO_1X, 3, 10).batch_size == 3


def test_a_config_takes_the_plan():
    cfg = COCO_1X.clone()
    plan_schedule(cfg, 100, 8, batch_size=2).apply(cfg)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH, cfg.TEST.EVAL_PERIOD) == (400, 2, 40)
    assert cfg.SOLVER.CHECKPOINT_PERIOD == 40
    assert COCO_1X.SOLVER.MAX_ITER == 90000


@given(st.integers(1, 10**6), st.floats(0.01, 500), st.integers(1, 64))
def test_every_plan_can_be_run(num_images, epochs, batch):
    plan = plan_schedule(COCO_1X, num_images, epochs, batch)
    assert plan.iterations * batch >= num_images * epochs * (1 - 1e-12)
    assert (plan.iterations - 1) * batch < num_images * epochs or plan.iterations == 1
    assert all(0 < step < plan.iterations for step in plan.steps)
    assert plan.warmup <= plan.iterations / 10
    assert math.ceil(plan.iterations / plan.period) <= 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10, 4), "at least one image"),
        ((5, 0, 4), "epochs must be above 0, got 0"),
        ((5, math.nan, 4), "epochs must be above 0, got nan"),
        ((5, math.inf, 4), "epochs must be above 0, got inf"),
        ((5, 10, 0), "batch size must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_schedule(COCO_1X, *arguments)
