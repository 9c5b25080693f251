"""Folding of batch normalization preserves logits and removes layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import densemtl
from densemtl.errors import ModelError
from densemtl.models import batch_norm_folding
from densemtl.models.batch_norm_folding import fuse_conv_bn
from densemtl.models.multi_task_model import MultiTaskModel
from tests.helpers.exact import assert_same

NORM = nn.BatchNorm2d


def make(decoder: str, backbone: str, head: str = "fpn") -> MultiTaskModel:
    """Return a model with random statistics and weights, so that normalization has an effect."""
    torch.manual_seed(0)
    model = densemtl.create_model(decoder, backbone=backbone, head=head, tasks=["depth", "edge"])
    for module in model.modules():
        if isinstance(module, NORM):
            for values in (module.running_var, module.weight):
                nn.init.uniform_(values, 0.5, 1.5)
            for values in (module.running_mean, module.bias):
                nn.init.uniform_(values, -0.5, 0.5)
    return model.eval()


def count_norms(model: nn.Module) -> int:
    return sum(isinstance(module, NORM) for module in model.modules())


@pytest.mark.parametrize(
    ("decoder", "backbone", "head", "remaining"),
    [
        ("hard_sharing", "test_resnet", "fpn", 0),
        ("hard_sharing", "test_resnet", "deeplabv3", 0),
        ("hard_sharing", "hrnet_w18_small", "hrnetv2", 0),
        ("hard_sharing", "test_efficientnet", "fpn", 0),
        ("hard_sharing", "test_vit", "fpn", 0),
        ("mtan", "test_resnet", "fpn", 0),
        ("mti_net", "test_resnet", "linear", 0),
        ("cross_stitch", "test_resnet", "linear", 0),
        ("nddr_cnn", "test_resnet", "linear", 0),
    ],
)
@pytest.mark.usefixtures("double_precision")
def test_folding_preserves_logits_and_removes_normalization(
    decoder: str, backbone: str, head: str, remaining: int
) -> None:
    model = make(decoder, backbone, head)
    assert model.mean.dtype == torch.float64
    count = count_norms(model)
    folded = fuse_conv_bn(model)
    assert count > 0
    assert count_norms(model) == count
    assert count_norms(folded) == remaining
    image = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for task, logits in model(image).logits.items():
            assert_same(folded(image).logits[task], logits)


class SharedConvolution(nn.Module):
    """Network with a convolution that two normalizations read, and one that only one reads."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.plain = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norms = nn.ModuleList(NORM(3) for _ in range(4))

    def forward(self, image: Tensor) -> Tensor:
        shared = self.shared(image)
        both = self.norms[0](shared) + self.norms[1](shared)
        return self.norms[2](self.plain(both)) + self.norms[3](image)


def test_only_exclusive_pairs_are_folded() -> None:
    network = SharedConvolution().eval()
    image = torch.randn(1, 3, 4, 4)
    assert batch_norm_folding._find_conv_bn_pairs(network, image) == [
        (network.plain, network.norms[2])
    ]


def test_changed_logits_raise_model_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("hard_sharing", "test_resnet")
    monkeypatch.setattr(
        batch_norm_folding, "fuse_conv_bn_eval", lambda convolution, norm: convolution
    )
    with pytest.raises(ModelError, match=r"cannot be folded .*: the logits of depth change by"):
        fuse_conv_bn(model)
