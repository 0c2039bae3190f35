"""Neural networks, as modules and nothing else: no data, no training.

``from companion.models import resnet18`` and so on; a module is imported when it is first asked for.
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "blocks": ("BasicResidualBlock", "BottleneckBlock", "PreActResidualBlock"),
    "resnet": (
        "CifarResNet", "ResNet", "count_parameters",
        "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    ),
    "resnet9": ("ResNet9",),
    "tabular": ("ClassicTabularBlock", "PreNormTabularBlock", "TabularResNet"),
    "tabular_baselines": ("TabTransformer", "TableMLP", "make_table_net"),
    "masked_resnet": ("SelfSupervisedResNet",),
    "lstm": ("NextEventLSTM", "NextEventTransformer"),
    "autoencoders": ("ConvAutoencoder", "ResidualAutoencoder", "WaveAutoencoder"),
}  # fmt: skip
_HOMES = {name: (module, name) for module, names in _NAMES.items() for name in names}
_HOMES["ResNetAE"] = ("autoencoders", "WaveAutoencoder")  # the net of the estimator of that name
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, own = _HOMES[name]
        return getattr(import_module(f"companion.models.{module}"), own)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
