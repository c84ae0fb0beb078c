"""The scores of one arm, by every encoder that there is."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .arms import Arm
from .bootstrap import interval
from .distances import cmmd, frechet_distance, inception_score, kernel_distance
from .diversity import drift, mean_pairwise_distance, vendi_score
from .features import unit
from .paper import bootstrapped_frechet, subset_kernel
from .policy import advice
from .result import ArmScores, Interval, PictureScores, SetScores
from .roles import Roles, Vectors
from .similarity import self_similarity, style_similarity
from .statistics import normalised_interval, similarity_interval
from .units import LEAST, Units


class Measure:
    """Scores of arms against one set of references.

    Args:
        base: the arm of the untuned model, or None.
        paper: set scores as the NSYNC paper computes them.
        seed: of all resamples.
    """

    def __init__(
        self,
        references: Sequence[Tensor],
        base: Arm | None,
        roles: Roles,
        vectors: Vectors,
        paper: bool,
        seed: int,
    ) -> None:
        self.roles, self.vectors, self.seed = roles, vectors, seed
        self._pictures, self._base, self._paper = references, base, paper

    @cached_property
    def references(self) -> np.ndarray:
        """The references by the style encoder."""
        return self.vectors(self.roles.style, self._pictures)

    @cached_property
    def _closest(self) -> float:
        """How near the two references lie that are nearest to each other."""
        rows = _unit(self.vectors(self.roles.copies, self._pictures))
        cosines = rows @ rows.T
        np.fill_diagonal(cosines, -1)
        return float(cosines.max())

    def style(self, arm: Arm) -> np.ndarray:
        """The arm's pictures by the style encoder."""
        return self.vectors(self.roles.style, arm.pictures)

    def adherence(self, arm: Arm) -> np.ndarray | None:
        """Cosine of each picture and its caption, or None."""
        encoder = self.roles.adherence
        if encoder is None or not arm.captions:
            return None
        texts = _unit(encoder.encode_texts(arm.captions).double().numpy())
        return (_unit(self.vectors(encoder, arm.pictures)) * texts).sum(1)

    def content(self, arm: Arm) -> np.ndarray | None:
        """Cosine of each picture and the base's of the same prompt, or None."""
        encoder, base = self.roles.content, self._base
        if encoder is None or base is None or base is arm:
            return None
        pairs = (_unit(self.vectors(encoder, one.pictures)) for one in (arm, base))
        return np.prod(list(pairs), axis=0).sum(1)

    def distance(self, pictures: Sequence[Tensor]) -> np.ndarray:
        """Unit vectors for CMMD; of the style encoder where its own is not at hand."""
        return _unit(self.vectors(self.roles.distance or self.roles.style, pictures))

    def inception(self, pictures: Sequence[Tensor]) -> np.ndarray | None:
        """Pool features for FID and KID, or None."""
        encoder = self.roles.inception
        return None if encoder is None else self.vectors(encoder, pictures)

    def scores(self, arm: Arm) -> ArmScores:
        """Everything about an arm."""
        found = self.style(arm)
        style = style_similarity(self.references, found, "pairwise")
        adherence, content = self.adherence(arm), self.content(arm)
        near = self._nearest(arm)
        pictures = tuple(
            PictureScores(
                index=i,
                prompt=arm.prompts[i] if arm.prompts else "",
                style=float(style[i]),
                adherence=None if adherence is None else float(adherence[i]),
                content=None if content is None else float(content[i]),
                nearest=None if near is None else int(near[0][i]),
                similarity=None if near is None else float(near[1][i]),
            )
            for i in range(len(style))
        )
        return ArmScores(
            name=arm.name,
            pictures=pictures,
            style=self._style_interval(arm, float(style.mean())),
            style_nsync=float(style_similarity(self.references, found, "nsync").mean()),
            normalised=self._normalised(arm),
            adherence=self._mean(arm, adherence),
            content=self._mean(arm, content),
            sets=self._sets(arm),
            copies=self.copies(arm),
        )

    def copies(self, arm: Arm) -> tuple[int, ...] | None:
        """Indices of pictures nearer to a reference than any two references are to each other."""
        near = self._nearest(arm)
        if near is None:
            return None
        return tuple(int(i) for i in np.flatnonzero(near[1] > self._closest))

    def _style_interval(self, arm: Arm, mean: float) -> Interval:
        if min(len(arm.pictures), len(self.references)) < LEAST:
            return Interval(mean)
        options = {"prompts": arm.contents, "seed": self.seed}
        return Interval.of(similarity_interval(self.references, self.style(arm), **options))

    def _normalised(self, arm: Arm) -> Interval | None:
        if self._base is None or min(len(arm.pictures), len(self.references)) < LEAST:
            return None
        if arm is self._base:
            return Interval(0.0)
        found, base = self.style(arm), self.style(self._base)
        ceiling = self_similarity(self.references).mean()
        if ceiling <= style_similarity(self.references, base, "pairwise").mean():
            return None
        options = {"prompts": arm.contents, "seed": self.seed}
        return Interval.of(normalised_interval(self.references, found, base, **options))

    def _mean(self, arm: Arm, scores: np.ndarray | None) -> Interval | None:
        if scores is None:
            return None
        if len(scores) < LEAST:
            return Interval(float(scores.mean()))
        units = Units.of(len(scores), arm.contents)
        mean = units.drawn(lambda rows, _: rows @ scores / rows.sum(1))
        return Interval.of(interval(mean, units.count, 0, seed=self.seed))

    def _nearest(self, arm: Arm) -> tuple[np.ndarray, np.ndarray] | None:
        """The reference nearest to each picture, and how near."""
        encoder = self.roles.copies
        if encoder is None:
            return None
        ours, theirs = (_unit(self.vectors(encoder, p)) for p in (arm.pictures, self._pictures))
        cosines = ours @ theirs.T
        return cosines.argmax(1), cosines.max(1)

    def _sets(self, arm: Arm) -> SetScores:
        least = min(len(arm.pictures), len(self._pictures))
        content = self.roles.content
        several = content is not None and len(arm.pictures) > 1
        varied = self.vectors(content, arm.pictures) if several else None
        ours, theirs = self.distance(arm.pictures), self.distance(self._pictures)
        near = advice("cmmd", least).level != "no"
        return SetScores(
            cmmd=cmmd(theirs, ours) if near else None,
            cmmd_biased=cmmd(theirs, ours, unbiased=False) if near else None,
            vendi=vendi_score(varied) if several else None,
            spread=mean_pairwise_distance(varied) if several else None,
            drift=self.drift(arm),
            inception=self._inception_score(arm),
            **self._inception_distances(arm, least),
        )

    def _inception_distances(self, arm: Arm, least: int) -> dict[str, float]:
        ours, theirs = self.inception(arm.pictures), self.inception(self._pictures)
        found: dict[str, float] = {}
        if ours is None or theirs is None:
            return found
        if advice("kid", least).level != "no":
            kid = subset_kernel(theirs, ours, seed=self.seed)[0] if self._paper else None
            found["kid"] = kernel_distance(theirs, ours) if kid is None else kid
        if advice("fid", least).level != "no":
            fid = bootstrapped_frechet(theirs, ours, seed=self.seed)[0] if self._paper else None
            found["fid"] = frechet_distance(theirs, ours) if fid is None else fid
        return found

    def _inception_score(self, arm: Arm) -> float | None:
        encoder = self.roles.classes
        if encoder is None or advice("is", len(arm.pictures)).level == "no":
            return None
        features = torch.from_numpy(self.vectors(encoder, arm.pictures)).float()
        return inception_score(encoder.probabilities(features))

    def drift(self, arm: Arm) -> float | None:
        """How far the arm's pictures of bare captions lie from the base's, or None."""
        base = self._base
        if base is None or base is arm or not base.plain or not arm.plain:
            return None
        encoder = self.roles.content or self.roles.style
        return float(
            drift(self.vectors(encoder, base.plain), self.vectors(encoder, arm.plain)).mean()
        )


def _unit(rows: np.ndarray) -> np.ndarray:
    return unit("pictures", rows)
