"""Check of `train.sequential_heads`, which runs the heads of the tasks one after another."""

from __future__ import annotations

from torch import nn

from densemtl import registry
from densemtl.balancing.base import Balancer, LossWeighting
from densemtl.config.sections import TrainConfig
from densemtl.decoders.base import IndependentHeadsDecoder
from densemtl.errors import ConfigError
from densemtl.models.multi_task_model import MultiTaskModel


def check_sequential_heads(config: TrainConfig, model: nn.Module, balancer: Balancer) -> None:
    """Check that the heads of a model can be trained one after another, if the run asks for it.

    Args:
        config: the section `train` of the configuration.
        model: the model.
        balancer: the balancing method.

    Raises:
        ConfigError: if they cannot; names the option to change.
    """
    if not config.sequential_heads:
        return
    prefix = "train.sequential_heads:"
    decoder = model.decoder if isinstance(model, MultiTaskModel) else None
    if not isinstance(decoder, IndependentHeadsDecoder):
        names = ", ".join(_list_decoders())
        raise ConfigError(
            f"{prefix} tasks share features after the backbone in this decoder; use {names}, or set"
            " it to false"
        )
    if not isinstance(balancer, LossWeighting):
        raise ConfigError(
            f"{prefix} this balancing method needs the gradients of all tasks at once; choose a "
            "loss-weighting method such as fixed or uncertainty"
        )
    for gate in model.gates if isinstance(model, MultiTaskModel) else ():
        if gate.options.gate == "host":
            raise ConfigError(
                f"{prefix} {gate.task} reads the prediction of {gate.host} (entire_space); set its "
                "gate to separate, or sequential_heads to false"
            )
    for name in ("fsdp", "compile"):
        if getattr(config, name):
            raise ConfigError(f"{prefix} not supported with train.{name}; set one of them to false")


def _list_decoders() -> list[str]:
    return [
        name
        for name in registry.list_names("decoders")
        if issubclass(registry.get_class("decoders", name), IndependentHeadsDecoder)
    ]
