"""Folded networks give the same, with less in them."""

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
    """With statistics and weights that normalisation cannot be left out for."""
    torch.manual_seed(0)
    model = densemtl.create_model(decoder, backbone=backbone, head=head, tasks=["depth", "edge"])
    for module in model.modules():
        if isinstance(module, NORM):
            for values in (module.running_var, module.weight):
                nn.init.uniform_(values, 0.5, 1.5)
            for values in (module.running_mean, module.bias):
                nn.init.uniform_(values, -0.5, 0.5)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, NORM) for module in model.modules())


@pytest.mark.parametrize(
    ("decoder", "backbone", "head", "left"),
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
def test_folded_gives_the_same(decoder: str, backbone: str, head: str, left: int) -> None:
    model = make(decoder, backbone, head)
    assert model.mean.dtype == torch.float64
    count = norms(model)
    folded = fuse_conv_bn(model)
    assert count > 0
    assert norms(model) == count
    assert norms(folded) == left
    image = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for task, logits in model(image).logits.items():
            assert_same(folded(image).logits[task], logits)


class Twice(nn.Module):
    """A convolution that two normalisations read, and one that has one to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.plain = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norms = nn.ModuleList(NORM(3) for _ in range(4))

    def forward(self, image: Tensor) -> Tensor:
        shared = self.shared(image)
        both = self.norms[0](shared) + self.norms[1](shared)
        return self.norms[2](self.plain(both)) + self.norms[3](image)


def test_only_pairs_are_folded() -> None:
    network = Twice().eval()
    image = torch.randn(1, 3, 4, 4)
    assert batch_norm_folding._find_conv_bn_pairs(network, image) == [
        (network.plain, network.norms[2])
    ]


def test_what_changes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("hard_sharing", "test_resnet")
    monkeypatch.setattr(
        batch_norm_folding, "fuse_conv_bn_eval", lambda convolution, norm: convolution
    )
    with pytest.raises(ModelError, match=r"cannot be folded .*: the logits of depth change by"):
        fuse_conv_bn(model)
