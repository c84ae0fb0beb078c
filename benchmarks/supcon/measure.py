"""The measures of a record: what the ruler and the judge read in pictures."""

from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional as F

from nsync.evaluation import frechet_distance, inception_score
from nsync.pictures.images import to_uint8
from nsync.supcon.encoders import Encoders
from nsync.supcon.retrieval import Retrieval, retrieval
from nsync.tiny.ruler import TABLES, Reading, Ruler
from nsync.tiny.scenes import SIZE

from .world import Test

CONTENT = ("shape", "colour", "place", "count")
CLASSES = ("style", "shape", "colour")
"""The ruler's tables whose combinations are the classes of the Inception Score."""

_BATCH = 64


@dataclass(frozen=True)
class Judged:
    """What encoders make of texts and pictures, row by row."""

    encoders: Encoders

    def precision(self, pictures: Tensor, captions: list[str]) -> Retrieval:
        """R-precision of uint8 pictures `[n, 3, s, s]` with their captions."""
        return retrieval(self._seen(pictures), self._read(captions), captions)

    def own(self, test: Test) -> dict[str, float]:
        """R-precision and margin of real pictures.

        The margin is by how much the cosine of a picture and its caption is above that of the
        nearest caption which says one thing otherwise, the mean. R-precision ranks, and does not
        see how near they are; a loss at a fixed temperature does.
        """
        seen = self._seen(test.real)
        found = retrieval(seen, self._read(test.captions), test.captions)
        return {"own_precision": found.text_to_image, "own_margin": self._margin(seen, test)}

    def _margin(self, seen: Tensor, test: Test) -> float:
        images, margins = F.normalize(seen, dim=1), []
        for caption, near in test.near.items():
            rows = [place for place, other in enumerate(test.captions) if other == caption]
            scores = images[rows] @ F.normalize(self._read([caption, *near]), dim=1).T
            margins += (scores[:, 0] - scores[:, 1:].amax(1)).tolist()
        return fmean(margins)

    @torch.no_grad()
    def _seen(self, pictures: Tensor) -> Tensor:
        parts = pictures.split(_BATCH)
        return torch.cat([self.encoders.images(part / 127.5 - 1).whole for part in parts])

    @torch.no_grad()
    def _read(self, captions: list[str]) -> Tensor:
        unique = list(dict.fromkeys(captions))
        sentences = dict(zip(unique, self.encoders.texts(unique).sentence, strict=True))
        return torch.stack([sentences[caption] for caption in captions])


class Instruments:
    """The ruler, loaded once."""

    def __init__(self) -> None:
        self._ruler = Ruler.load()
        self._real = lru_cache(1)(lambda test: self.read(test.real))

    def read(self, pictures: Tensor) -> Reading:
        """What the ruler reads in uint8 `[n, 3, s, s]`, smaller ones scaled up to its size."""
        return Reading.joined(
            [self._ruler.read(_enlarged(part)) for part in pictures.split(_BATCH)]
        )

    def measure(self, pictures: Tensor, test: Test, judge: Judged) -> dict[str, float]:
        """All measures of pictures of the test's captions; see the table in docs/supcon.md."""
        read, real = self.read(pictures), self._real(test)
        hits = _hits(read, test)
        found = judge.precision(pictures, test.captions)
        return {
            "frechet": frechet_distance(real.features.double(), read.features.double()),
            "inception": inception_score(_classes(read)),
            "precision": found.text_to_image,
            "precision_image": found.image_to_text,
            **{name: float(hit.double().mean()) for name, hit in hits.items()},
            "all": float(torch.stack(list(hits.values())).all(0).double().mean()),
        }


def painted(pixels: Tensor) -> Tensor:
    """Pictures 0..1 as files hold them; of a network that fell apart NaN is black."""
    return to_uint8(pixels.nan_to_num())


def _enlarged(pictures: Tensor) -> Tensor:
    pixels = pictures.float() / 255
    if pixels.shape[-1] == SIZE:
        return pixels
    return to_uint8(F.interpolate(pixels, size=(SIZE, SIZE), mode="bilinear")).float() / 255


def _hits(read: Reading, test: Test) -> dict[str, Tensor]:
    """Bool `[n]` by what is asked for: read as the caption says."""
    style = torch.tensor([TABLES["style"].index(one.style) for one in test.asked])
    scenes = [one.scene for one in test.asked]
    hits = {"style": read.indices("style") == style}
    return hits | {name: read.content_hits(scenes, (name,)) for name in CONTENT}


def _classes(read: Reading) -> Tensor:
    """Probabilities of the combinations, float64 `[n, styles x shapes x colours]`.

    The ruler's heads are read as independent given the picture.
    """
    joint = torch.ones(len(read.features), 1, dtype=torch.float64)
    for name in CLASSES:
        table = read.probabilities[name].double()
        joint = (joint[:, :, None] * (table / table.sum(1, keepdim=True))[:, None]).flatten(1)
    return joint
