"""The convolutional networks behind the encoders: FID's Inception, SSCD, and the tiny ruler."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import inception as blocks
from torchvision.models import resnet50

from ..tiny.ruler import TABLES, Ruler
from .layouts import Tensors
from .networks import fill

IMAGENET_RULE = "torchvision's Inception v3 (inception_v3_google-0cc3c7bd.pth)"
SSCD_WIDTH = 512
SSCD_RULE = "SSCD with torchvision's names (sscd_disc_mixup.torchvision.pt)"


class FidInception(nn.Module):
    """The FID network of 2015-12-05: pixels `[n, 3, 299, 299]` to pool features `[n, 2048]`.

    torchvision's Inception v3 but for four things, all of which change the numbers: average pools
    do not count the padding, the last block pools by maximum, there are 1,008 classes, and the
    bias of the class layer stays out of the logits.

    Source: `inception.py` of mseitzer/pytorch-fid, `feature_extractor_inceptionv3.py` of
    toshas/torch-fidelity.
    """

    def __init__(self, tensors: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        with torch.device("meta"):
            self.trunk = _fid_trunk()
        fill(self.trunk, _uncounted(tensors, self.trunk), name, "FID's Inception of 2015-12-05")
        self.width = self.trunk.fc.in_features
        self.classes = self.trunk.fc.weight
        self.trunk.fc = nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.trunk(pixels)


class ImageNetInception(nn.Module):
    """torchvision's Inception v3: pixels `[n, 3, 299, 299]` in -1..1 to pool features `[n, 2048]`.

    Source: `InceptionV3` in `models/inception.py` of abdulfatir/gan-metrics-pytorch, which takes
    the blocks out of torchvision's network, and with them leaves out its `transform_input`.
    """

    def __init__(self, tensors: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        with torch.device("meta"):
            self.trunk = blocks.Inception3(init_weights=False)
        fill(self.trunk, _uncounted(tensors, self.trunk), name, IMAGENET_RULE)
        self.width = self.trunk.fc.in_features
        self.trunk.fc, self.trunk.AuxLogits = nn.Identity(), None

    def forward(self, pixels: Tensor) -> Tensor:
        return self.trunk(pixels)


class Sscd(nn.Module):
    """SSCD: pixels `[n, 3, h, w]` to 512 values, not normalised.

    ResNet-50 with generalised mean pooling (power 3) and a linear layer.

    Source: `TV_RESNET50` in `sscd/models/model.py` of facebookresearch/sscd-copy-detection.
    """

    def __init__(self, tensors: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        weights = {key.removeprefix("backbone."): value for key, value in tensors.items()}
        with torch.device("meta"):
            self.backbone = resnet50(num_classes=SSCD_WIDTH)
        self.backbone.avgpool = GeneralisedMean()
        fill(self.backbone, _uncounted(weights, self.backbone), name, SSCD_RULE)
        self.width = SSCD_WIDTH

    def forward(self, pixels: Tensor) -> Tensor:
        return self.backbone(pixels)


class GeneralisedMean(nn.Module):
    """`mean(x^3)^(1/3)` over height and width of `[n, c, h, w]`, giving `[n, c]`."""

    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(2).clamp(min=1e-6).pow(3).mean(2).pow(1 / 3)


class RulerStyle(nn.Module):
    """The ruler's style head: pixels `[n, 3, 64, 64]` in 0..1 to a value per style `[n, styles]`.

    The features before the heads hold content as well: of two pictures, one alike in style and one
    not, they tell which is which in 79 % of cases, and the projection by the style head in more
    than 99.9 %. As with CSD the head is a plain projection: without its bias, and without the
    direction that all styles share.
    """

    def __init__(self, ruler: Ruler) -> None:
        super().__init__()
        self.body = ruler.body
        self.width = len(ruler.tables["style"])
        weight = ruler.heads["style"].weight.detach()
        self.style = nn.Parameter(weight - weight.mean(0), requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return F.linear(self.body(pixels * 2 - 1), self.style)


class RulerContent(nn.Module):
    """What the ruler reads of the content: pixels `[n, 3, 64, 64]` in 0..1 to a unit vector.

    The square roots of the probabilities of shape, colour, place and count, side by side and
    halved: the cosine of two pictures is the mean of the tables' Bhattacharyya coefficients.
    """

    TABLES = ("shape", "colour", "place", "count")

    def __init__(self, ruler: Ruler) -> None:
        super().__init__()
        self.body = ruler.body
        self.heads = nn.ModuleDict({name: ruler.heads[name] for name in self.TABLES})
        self.width = sum(len(TABLES[name]) for name in self.TABLES)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.body(pixels * 2 - 1)
        tables = [head(features).softmax(1).sqrt() for head in self.heads.values()]
        return torch.cat(tables, 1) / len(tables) ** 0.5


class _TensorFlowPool:
    """A block whose last branch pools as TensorFlow does.

    torchvision's `_forward` gives the branches as a list, of which only the last is replaced:
    its 1 x 1 convolution runs twice, some hundredths of the time, and no block is copied here.
    """

    def _forward(self, features: Tensor) -> list[Tensor]:
        return [*super()._forward(features)[:-1], self.branch_pool(self.pool(features))]

    def pool(self, features: Tensor) -> Tensor:
        return F.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)


class _A(_TensorFlowPool, blocks.InceptionA):
    pass


class _C(_TensorFlowPool, blocks.InceptionC):
    pass


class _E(_TensorFlowPool, blocks.InceptionE):
    pass


class _LastE(_E):
    def pool(self, features: Tensor) -> Tensor:
        return F.max_pool2d(features, 3, stride=1, padding=1)


def _fid_trunk() -> nn.Module:
    kinds = [
        blocks.BasicConv2d, _A, blocks.InceptionB, _C, blocks.InceptionD, _E, blocks.InceptionAux,
    ]  # fmt: skip
    trunk = blocks.Inception3(
        num_classes=1008, aux_logits=False, inception_blocks=kinds, init_weights=False
    )
    trunk.Mixed_7c = _LastE(2048)
    return trunk


def _uncounted(tensors: Mapping[str, Tensor], model: nn.Module) -> Tensors:
    """The tensors, with zero for the batch counters of training, which only some files have."""
    counters = [key for key in model.state_dict() if key.endswith("num_batches_tracked")]
    return dict(tensors) | {key: torch.zeros((), dtype=torch.long) for key in counters}
