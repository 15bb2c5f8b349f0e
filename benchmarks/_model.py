"""Inference and a training step of the whole model, split into phases."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator

import torch
from _cases import Sizes, ground_truth
from _timing import ForeignLoad, Result, peak_memory, synchronize
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from torch import nn

from solo_d2 import add_solo_config, model_zoo

CONFIG = "COCO-InstanceSegmentation/solov2_R_50_FPN_3x.yaml"


class Laps:
    """Milliseconds of consecutive phases."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: dict[str, list[float]] = defaultdict(list)

    def start(self) -> None:
        """Begin a new pass."""
        synchronize(self.device)
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a phase."""
        synchronize(self.device)
        now = time.perf_counter()
        self.times[name].append((now - self._last) * 1e3)
        self._last = now


def make_model(sizes: Sizes, device: torch.device) -> nn.Module:
    """SOLOv2 R50 with random weights, set so that a photograph-sized input has candidates."""
    cfg = get_cfg()
    add_solo_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file(CONFIG))
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = "", str(device)
    if sizes.canvas[0] < 200:
        cfg.MODEL.SOLO.NUM_CONVS, cfg.MODEL.SOLO.CONV_DIM = 1, 32
    torch.manual_seed(0)
    model = build_model(cfg)
    for parameter in model.head.parameters():
        if parameter.dim() == 4:
            nn.init.kaiming_normal_(parameter)
    # Zero-mean kernels make blobs instead of all-or-nothing masks.
    weight = model.head.kernel_predictor.weight.data
    weight -= weight.mean(0, keepdim=True)
    return model


def model_cases(
    sizes: Sizes, device: torch.device, rounds: int, seconds: float
) -> Iterator[Result]:
    """Every phase of inference on one image and of a training step on two."""
    model = make_model(sizes, device)
    generator = torch.Generator().manual_seed(0)
    shape = (3, *sizes.canvas)
    image = {"image": torch.randint(256, shape, generator=generator, dtype=torch.uint8)}
    batch = [
        {**image, "instances": ground_truth(sizes.objects[0], sizes.canvas, seed)}
        for seed in (1, 2)
    ]

    def infer(laps: Laps) -> None:
        laps.start()
        with torch.no_grad():
            images = model.preprocess_image([image])
            features = model.backbone(images.tensor)
            laps.lap("backbone")
            predictions = model.head(features)
            laps.lap("head")
            model.inference(predictions, images, [image])
            laps.lap("post-processing")

    def train(laps: Laps) -> None:
        model.zero_grad()
        laps.start()
        images = model.preprocess_image(batch)
        features = model.backbone(images.tensor)
        laps.lap("backbone")
        predictions = model.head(features)
        laps.lap("head")
        gt = [x["instances"] for x in batch]
        targets = model.assigner(gt, sizes.canvas, device)
        laps.lap("targets")
        losses = model.criterion(predictions, targets, model.head.mask_probs)
        laps.lap("loss")
        sum(losses.values()).backward()
        laps.lap("backward")

    for name, work, training in (("inference", infer, False), ("training step", train, True)):
        model.train(training)
        work(Laps(device))  # warm-up
        laps, load, start = Laps(device), ForeignLoad(), time.perf_counter()
        for done in range(rounds):
            if done and time.perf_counter() - start > seconds:
                break
            work(laps)
        foreign = load.cores()
        memory = peak_memory(lambda work=work: work(Laps(device)), device)
        total = [sum(phases) for phases in zip(*laps.times.values(), strict=True)]
        yield Result(f"{name}, total", total, ours_mib=memory, foreign_cores=foreign)
        for phase, times in laps.times.items():
            yield Result(f"{name}, {phase}", times, foreign_cores=foreign)
