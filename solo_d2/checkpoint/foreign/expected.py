"""Names and shapes of all parameters and buffers of an `Architecture`, without building it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .architectures import DEPTHS, Architecture

Entries = Iterator[tuple[str, tuple[int, ...]]]

_GROUP_NORM = ("weight", "bias")
_BATCH_NORM = (*_GROUP_NORM, "running_mean", "running_var")


def expected_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """The state dict of the model that the architecture's config builds: key -> shape."""
    a = architecture
    head = {
        "VanillaSOLOHead": _vanilla,
        "DecoupledSOLOHead": _decoupled,
        "DecoupledLightSOLOHead": _decoupled,
        "DynamicSOLOHead": _dynamic,
    }[a.head]
    entries = [*_resnet(a), *_pyramid(a), *_categories(a), *head(a)]
    return dict(entries)


def _conv(
    key: str, out: int, inside: int, side: int, norm: Sequence[str] = (), *, bias: bool = False
) -> Entries:
    yield f"{key}.weight", (out, inside, side, side)
    if bias:
        yield f"{key}.bias", (out,)
    for name in norm:
        yield f"{key}.norm.{name}", (out,)


def _offsets(key: str, inside: int, side: int, modulated: bool) -> Entries:
    channels = (3 if modulated else 2) * side**2
    return _conv(key, channels, inside, side, bias=True)


def _resnet(a: Architecture) -> Entries:
    stem = "backbone.bottom_up"
    yield from _conv(f"{stem}.stem.conv1", 64, 3, 7, _BATCH_NORM)
    inside = 64
    for i, blocks in enumerate(DEPTHS[a.depth]):
        out = (256 if a.bottlenecks else 64) * 2**i
        for block in range(blocks):
            yield from _block(a, f"{stem}.res{i + 2}.{block}", i, inside, out)
            inside = out


def _block(a: Architecture, key: str, stage: int, inside: int, out: int) -> Entries:
    if inside != out:
        yield from _conv(f"{key}.shortcut", out, inside, 1, _BATCH_NORM)
    if not a.bottlenecks:
        yield from _conv(f"{key}.conv1", out, inside, 3, _BATCH_NORM)
        yield from _conv(f"{key}.conv2", out, out, 3, _BATCH_NORM)
        return
    width = a.num_groups * a.width_per_group * 2**stage
    yield from _conv(f"{key}.conv1", width, inside, 1, _BATCH_NORM)
    if a.deform_stages[stage]:
        yield from _offsets(f"{key}.conv2_offset", width, 3, a.stages_modulated)
    yield from _conv(f"{key}.conv2", width, width // a.num_groups, 3, _BATCH_NORM)
    yield from _conv(f"{key}.conv3", out, width, 1, _BATCH_NORM)


def _pyramid(a: Architecture) -> Entries:
    for i in range(4):
        channels = (256 if a.bottlenecks else 64) * 2**i
        yield from _conv(f"backbone.fpn_lateral{i + 2}", a.fpn_dim, channels, 1, bias=True)
        yield from _conv(f"backbone.fpn_output{i + 2}", a.fpn_dim, a.fpn_dim, 3, bias=True)


def _layer(
    a: Architecture, key: str, out: int, inside: int, side: int = 3, *, deform: bool
) -> Entries:
    yield from _conv(key, out, inside, side, _GROUP_NORM)
    if deform:
        yield from _offsets(f"{key}.conv_offset", inside, side, a.modulated)


def _tower(a: Architecture, key: str, coords: int) -> Entries:
    inside = a.fpn_dim + coords
    for i in range(a.num_convs):
        deform = a.deform == "all" or (a.deform == "last" and i == a.num_convs - 1)
        yield from _layer(a, f"head.{key}.{i}", a.conv_dim, inside, deform=deform)
        inside = a.conv_dim


def _categories(a: Architecture) -> Entries:
    yield from _tower(a, "category_tower", 0)
    yield from _conv("head.category_predictor", a.num_classes, a.conv_dim, 3, bias=True)


def _vanilla(a: Architecture) -> Entries:
    yield from _tower(a, "mask_tower", 2)
    for i, size in enumerate(a.num_grids):
        yield from _conv(f"head.mask_predictors.{i}", size**2, a.conv_dim, 1, bias=True)


def _decoupled(a: Architecture) -> Entries:
    for axes in ("xy",) if a.head == "DecoupledLightSOLOHead" else ("x", "y"):
        yield from _tower(a, f"mask_towers.{axes}", len(axes))
    for axis in "xy":
        for i, size in enumerate(a.num_grids):
            yield from _conv(f"head.{axis}_predictors.{i}", size, a.conv_dim, 3, bias=True)


def _dynamic(a: Architecture) -> Entries:
    yield from _tower(a, "kernel_tower", 2)
    yield from _conv("head.kernel_predictor", a.kernel_dim, a.conv_dim, 3, bias=True)
    feature, deform = "head.mask_feature", a.deform == "all"
    for level in range(4):
        inside = a.fpn_dim + (2 if level == 3 else 0)
        for j in range(max(level, 1)):
            key = f"{feature}.stages.{level}.{j}"
            yield from _layer(a, key, a.feature_conv_dim, inside, deform=deform)
            inside = a.feature_conv_dim
    yield from _layer(a, f"{feature}.predictor", a.kernel_dim, a.feature_conv_dim, 1, deform=deform)
