"""An evaluation by encoders of a few numbers: the pictures and what is asked of them."""

from dataclasses import replace

from plain_encoders import PlainEncoder, pictures

from nsync.evaluation.arms import Arm
from nsync.evaluation.request import Request

WARM, COLD = (0.9, 0.5, 0.2), (0.2, 0.4, 0.9)
CAPTIONS = tuple(f"a thing number {place}" for place in range(12))


def request(**changes: object) -> Request:
    """The base is cold, plain half way, nsync warm as the references are."""
    arms = (
        arm("base", COLD, 1),
        arm("plain", (0.6, 0.5, 0.5), 2),
        arm("nsync", WARM, 3),
    )
    asked = Request(pictures(8, WARM, 0), arms, "nsync", "base")
    return replace(asked, **changes)


def arm(name: str, colour: tuple[float, float, float], seed: int) -> Arm:
    plain = pictures(12, COLD, 40 if name == "base" else 40 + seed)
    return Arm(name, pictures(12, colour, seed), CAPTIONS, CAPTIONS, plain)


def every_encoder() -> list[PlainEncoder]:
    names = ("csd", "dinov2", "sscd", "clip-l-14-336", "inception")
    encoders = [PlainEncoder(name, seed) for seed, name in enumerate(names)]
    return [*encoders, PlainEncoder("clip-l-14", 9, texts=True)]
