"""The measures of a record, from pictures and from what is true."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from nsync.evaluation import (
    cmmd,
    drift,
    frechet_distance,
    kernel_distance,
    style_similarity,
    vendi_score,
)
from nsync.evaluation.convnets import RulerContent, RulerStyle
from nsync.evaluation.encoders import NetworkEncoder
from nsync.evaluation.features import unit
from nsync.evaluation.preprocess import RULER_64
from nsync.evaluation.weights import identity
from nsync.tiny.ruler import Reading, Ruler

from .draw import Drawn
from .families import Family
from .world import Scenes

CONTENT = ("shape", "colour", "place", "count")


@dataclass(frozen=True)
class Truth:
    """What the pictures of a style and seed are held to, as the instruments see it.

    Attributes:
        features: `[n, 128]`, of true renders of the held-out captions, by the ruler.
        style_vectors: of the same, by the encoder "ruler".
        diversity: their Vendi score by the encoder "ruler-content".
        positives: uint8 `[m, 3, 64, 64]`.
        base_plain: `[k, 128]`, of what the base draws without the style token.
    """

    style: str
    scenes: Scenes
    features: Tensor
    style_vectors: Tensor
    diversity: float
    positives: Tensor
    base_plain: Tensor


class Instruments:
    """The ruler of a family of styles, and the evaluator's encoders by it, loaded once."""

    def __init__(self, family: Family) -> None:
        self._ruler = Ruler.load(family.ruler)
        self._style = _encoder("ruler", RulerStyle(self._ruler))
        self._content = _encoder("ruler-content", RulerContent(self._ruler))

    def truth(
        self, style: str, scenes: Scenes, references: Tensor, positives: Tensor, base: Drawn
    ) -> Truth:
        """Look at the references once for all arms; pictures are uint8 `[n, 3, 64, 64]`."""
        return Truth(
            style=style,
            scenes=scenes,
            features=self.read(references).features,
            style_vectors=self._style.encode(list(references)),
            diversity=vendi_score(self._content.encode(list(references))),
            positives=positives,
            base_plain=self.read(base.plain).features,
        )

    def read(self, pictures: Tensor) -> Reading:
        """What the ruler reads in uint8 `[n, 3, 64, 64]`."""
        return Reading.joined([self._ruler.read(part / 255) for part in pictures.split(64)])

    def measure(self, drawn: Drawn, truth: Truth) -> dict[str, float]:
        """All measures of what a model draws; see the table in docs/stylebench.md."""
        scenes = truth.scenes
        styled, plain = self.read(drawn.styled), self.read(drawn.plain)
        hits = {name: _share(styled.content_hits(scenes.held_out, (name,))) for name in CONTENT}
        vectors = self._style.encode(list(drawn.styled))
        diversity = vendi_score(self._content.encode(list(drawn.styled)))
        probability = styled.probabilities["style"][:, styled.styles.index(truth.style)]
        return {
            "style_hit": _share(styled.style_hits(truth.style)),
            "style_probability": float(probability.double().mean()),
            **hits,
            "content": _share(styled.content_hits(scenes.held_out, CONTENT)),
            **_distances(truth.features, styled.features),
            "similarity": float(style_similarity(truth.style_vectors, vectors, "pairwise").mean()),
            "drift": float(drift(truth.base_plain, plain.features).mean()),
            "plain_content": _share(plain.content_hits(scenes.plain, CONTENT)),
            "diversity": diversity / truth.diversity,
            "copies": copies(drawn.styled, truth.positives),
        }


def copies(pictures: Tensor, positives: Tensor) -> float:
    """The share of pictures nearer to a positive than any two positives are to each other.

    Nearness is that of the pixels' means over 4 x 4 blocks, where fine noise does not count: of 576
    positives, coded by the autoencoder and with noise of 0.03 on them, it finds all (whole pixels
    94 %, the ruler's features 93 to 96 %). Of true renders of other scenes it takes 9 % for copies:
    a style and a scene that differs in little are near.

    Args:
        pictures: uint8 `[n, 3, h, w]`.
        positives: uint8 `[m, 3, h, w]`, at least 2.
    """
    ours, theirs = (avg_pool2d(part.float(), 4).flatten(1) for part in (pictures, positives))
    apart = torch.pdist(theirs).min()
    near = torch.cdist(ours, theirs, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    return _share(near < apart)


def _encoder(name: str, network: RulerStyle | RulerContent) -> NetworkEncoder:
    """As `load_encoder` makes it for the shipped ruler."""
    return NetworkEncoder(name, network, RULER_64, identity(network.state_dict()))


def _distances(truth: Tensor, features: Tensor) -> dict[str, float]:
    true, ours = (part.double().numpy() for part in (truth, features))
    return {
        "frechet": frechet_distance(true, ours),
        "kernel": kernel_distance(true, ours),
        "cmmd": cmmd(unit("references", true), unit("pictures", ours)),
    }


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
