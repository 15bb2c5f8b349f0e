"""A small folder in Cityscapes' layout."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

SIZE = (64, 96)
ROAD, SKY, CAR_GROUP, CARAVAN = 7, 23, 26, 29000


def ids_of(split, number):
    """Instance ids: two cars and a person, a group of cars, a caravan, and background."""
    ids = np.full(SIZE, ROAD, np.int32)
    ids[:20] = SKY
    shift = 3 * number + (split == "train")
    ids[22:50, 4 + shift : 30 + shift] = 26000
    ids[30:52, 35 + shift : 60 + shift] = 26001
    ids[25:60, 62 + shift : 75 + shift] = 24000
    ids[52:62, 2:40] = CAR_GROUP
    ids[2:18, 70:90] = CARAVAN
    return ids


def write_folder(root):
    """Two cities with two images each, in "train" and "val"."""
    for split in ("train", "val"):
        for city in ("aachen", "bremen"):
            images, truth = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
            images.mkdir(parents=True)
            truth.mkdir(parents=True)
            for number in (0, 1):
                stem, ids = f"{city}_{number:06d}_000019", ids_of(split, number)
                pixels = np.stack([ids % 251, ids // 1000 * 5, ids % 7 * 30], 2).astype(np.uint8)
                Image.fromarray(pixels).save(images / f"{stem}_leftImg8bit.png")
                Image.fromarray(ids.astype(np.uint16)).save(
                    truth / f"{stem}_gtFine_instanceIds.png"
                )
                polygons = {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": []}
                (truth / f"{stem}_gtFine_polygons.json").write_text(json.dumps(polygons))
