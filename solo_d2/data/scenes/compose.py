"""Compose scenes of cut-outs over a background, with the visible alpha of each object.

Shapes: (H, W) canvas in pixels, K instances, (h, w) a layer's own size. Colours and alphas are
float32 in [0, 1]. Colours of a layer are *premultiplied* by its alpha, so that resizing a layer
leaves no halos at soft edges.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

__all__ = ["PRESENT", "Layer", "Matte", "Scene", "compose"]

PRESENT = -1
"""Category of what a background shows already."""


@dataclass(frozen=True)
class Layer:
    """A cut-out, resized and rotated, and its position on the canvas.

    Attributes:
        rgba: (h, w, 4) float32 in [0, 1], RGB premultiplied by alpha.
        x: canvas column of the layer's left column; negative when it sticks out.
        y: canvas row of the layer's top row; negative when it sticks out.
        category: contiguous category index, from 0.
    """

    rgba: np.ndarray
    x: int
    y: int
    category: int


@dataclass(frozen=True)
class Matte:
    """The visible alpha of one instance, as a crop of the canvas.

    Attributes:
        alpha: (h, w) float32 in [0, 1]; zero outside of the crop is implied.
        x: canvas column of the crop's left column, at least 0.
        y: canvas row of the crop's top row, at least 0.
    """

    alpha: np.ndarray
    x: int
    y: int

    def on_canvas(self, height: int, width: int) -> np.ndarray:
        """Paste the matte into an empty canvas, (height, width) float32."""
        canvas = np.zeros((height, width), np.float32)
        h, w = self.alpha.shape
        canvas[self.y : self.y + h, self.x : self.x + w] = self.alpha
        return canvas


@dataclass(frozen=True)
class Scene:
    """A composed image with its annotations.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        categories: (K,) int64 contiguous category indices, bottom layer first.
        mattes: K visible alphas, in the order of `categories`.
        stuff: (H, W) uint8 labels of the background, or None where there are none.
    """

    image: np.ndarray
    categories: np.ndarray
    mattes: list[Matte]
    stuff: np.ndarray | None = None

    @property
    def masks(self) -> np.ndarray:
        """Visible masks (K, H, W) bool: visible alpha of at least one half."""
        height, width = self.image.shape[:2]
        masks = [matte.on_canvas(height, width) >= 0.5 for matte in self.mattes]
        return np.stack(masks) if masks else np.zeros((0, height, width), bool)


@dataclass
class _Placed:
    """A layer clipped to the canvas: `alpha` is what is visible of it so far."""

    rgb: np.ndarray
    alpha: np.ndarray
    x: int
    y: int
    total: float  # alpha area of the full layer, including what lies outside the canvas
    category: int
    min_pixels: int

    def dimmed_by(self, top: _Placed) -> np.ndarray | None:
        """Visible alpha (h, w) once `top` lies above, or None where they do not meet."""
        x0, y0 = max(self.x, top.x), max(self.y, top.y)
        x1 = min(self.x + self.alpha.shape[1], top.x + top.alpha.shape[1])
        y1 = min(self.y + self.alpha.shape[0], top.y + top.alpha.shape[0])
        if x0 >= x1 or y0 >= y1:
            return None
        alpha = self.alpha.copy()
        above = top.alpha[y0 - top.y : y1 - top.y, x0 - top.x : x1 - top.x]
        alpha[y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x] *= 1 - above
        return alpha

    def shows(self, alpha: np.ndarray, min_visible: float) -> bool:
        """Return whether `alpha` (h, w), visible of this layer, is enough to be an instance."""
        enough = float(alpha.sum()) >= min_visible * self.total
        return enough and int((alpha >= 0.5).sum()) >= self.min_pixels


def _clip(layer: Layer, height: int, width: int, min_pixels: int) -> _Placed | None:
    h, w = layer.rgba.shape[:2]
    x0, y0 = max(layer.x, 0), max(layer.y, 0)
    x1, y1 = min(layer.x + w, width), min(layer.y + h, height)
    if x0 >= x1 or y0 >= y1:
        return None
    part = layer.rgba[y0 - layer.y : y1 - layer.y, x0 - layer.x : x1 - layer.x]
    total = float(layer.rgba[..., 3].sum())
    return _Placed(part[..., :3], part[..., 3], x0, y0, total, layer.category, min_pixels)


def _present(matte: Matte) -> _Placed:
    """What the background shows already; as small as it may be, it stays."""
    alpha = matte.alpha
    return _Placed(alpha[..., None], alpha, matte.x, matte.y, float(alpha.sum()), PRESENT, 0)


def compose(
    background: np.ndarray,
    layers: Iterable[Layer],
    *,
    present: Iterable[Matte] = (),
    min_visible: float = 0.3,
    min_pixels: int = 48,
    stuff: np.ndarray | None = None,
) -> Scene:
    """Compose `layers` over `background`, bottom layer first.

    A layer is left out if too little of it would be visible, or if it would hide too much of a
    layer below. Too little is a visible alpha area of less than `min_visible` of the layer's full
    alpha area (including the part outside the canvas), or fewer than `min_pixels` pixels with a
    visible alpha of at least 0.5.

    Args:
        background: (H, W, 3) uint8, RGB.
        layers: cut-outs, bottom first.
        present: objects that the background shows; of them `min_visible` must stay, too.
        min_visible: fraction in [0, 1].
        min_pixels: pixels, at least 1.
        stuff: (H, W) uint8 labels of the background, handed on to the scene.

    Returns:
        The scene. Its instances are those that were `present`, of the category `PRESENT`, and the
        layers that were kept, bottom first.
    """
    height, width = background.shape[:2]
    canvas = background.astype(np.float32) / 255
    placed = [_present(matte) for matte in present]
    for layer in layers:
        top = _clip(layer, height, width, min_pixels)
        if top is None or not top.shows(top.alpha, min_visible):
            continue
        met = [(below, below.dimmed_by(top)) for below in placed]
        dimmed = [(below, alpha) for below, alpha in met if alpha is not None]
        if not all(below.shows(alpha, min_visible) for below, alpha in dimmed):
            continue
        for below, alpha in dimmed:
            below.alpha = alpha
        h, w = top.alpha.shape
        window = canvas[top.y : top.y + h, top.x : top.x + w]
        window *= 1 - top.alpha[..., None]
        window += top.rgb
        placed.append(top)
    return Scene(
        image=np.clip(np.rint(canvas * 255), 0, 255).astype(np.uint8),
        categories=np.array([p.category for p in placed], np.int64),
        mattes=[Matte(p.alpha, p.x, p.y) for p in placed],
        stuff=stuff,
    )
