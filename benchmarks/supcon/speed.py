"""How long a picture takes: painted by a GAN, and drawn by the tiny base's diffusion.

usage: python -m benchmarks.supcon.speed [--pictures N] [--rounds N] [--write]

All make the same prompts' pictures of 64 px in one process on one thread, in turns (A B C A B C
...), so that a slow minute meets all of them; the reading of the prompts is in the time. GANs and
encoders are untrained, which speed does not depend on: narrow ones, of `studies/ablation.yaml`, and
ones as wide as published. `--write` puts the table between the markers of docs/supcon.md.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from nsync.denoiser import SamplerSettings
from nsync.draws import seeded
from nsync.style_set import StyleSet
from nsync.supcon.gan import FAMILIES
from nsync.supcon.gan.choices import vision_of
from nsync.supcon.gan.contract import Family
from nsync.supcon.gan.sampler import generate

from ..stylebench.world import tiny_denoiser
from ..tables import Spread, publish, surroundings, table
from .encoders import first_encoders
from .study import CLIP, SMALL, ClipSizes, Study, World
from .study_file import read_study
from .world import training_set

PAGE = Path(__file__).parents[2] / "docs" / "supcon.md"
STUDY = Path(__file__).parent / "studies" / "ablation.yaml"
SIZE, BATCH = 64, 16
DIFFUSION = "tiny base, 20 steps, guidance 3"
"""As the workflows draw; what the others are compared with."""
VIT_B_32 = ClipSizes(width=768, layers=12, heads=12, grid=7)

Paint = Callable[[Sequence[str], Sequence[int]], object]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=32, help="of each in a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE}")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    machine = surroundings("no GPU used")
    study = replace(read_study(STUDY), image_size=SIZE, pictures=asked.pictures)
    taught = training_set(study, World("style", "one"), 0)
    prompts = [item.caption for item in taught.items]
    times = measured(painters(study, taught), prompts, asked.rounds)
    told = f"{asked.pictures} pictures of {SIZE} px, {asked.rounds} rounds. {machine}"
    publish({"sampling": f"{told}\n\n{as_table(times)}"}, None, PAGE if asked.write else None)


def painters(study: Study, taught: StyleSet) -> dict[str, Paint]:
    """What is timed, by name; the encoders know the words of `taught`."""
    faster = "tiny base, 12 steps, guidance 3, bf16"
    found = {DIFFUSION: _diffusion(20, bf16=False), faster: _diffusion(12, bf16=True)}
    for name, plan in study.families.items():
        found[f"{name}, narrow"] = _gan(replace(plan.family, image_size=SIZE), study, taught)
    for name, kind in FAMILIES.items():
        published = kind(image_size=SIZE)
        wide = replace(study, encoder_width=published.text_width)
        if published.needs_vision:
            wide = replace(wide, image_size=7 * 32, clip=VIT_B_32)
        found[f"{name}, as wide as published"] = _gan(published, wide, taught)
    return found


def measured(arms: Mapping[str, Paint], prompts: Sequence[str], rounds: int) -> dict[str, list]:
    """Seconds a picture, by arm and round; a round before them is not counted."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    seeds = range(len(prompts))
    for count in range(rounds + 1):
        for name, paint in arms.items():
            begun = time.perf_counter()
            paint(prompts, seeds)
            if count:
                times[name].append((time.perf_counter() - begun) / len(prompts))
    return times


def as_table(times: Mapping[str, list[float]]) -> str:
    """Milliseconds a picture, and how many times as fast as diffusion: median, least and most."""
    rows = []
    for name, seconds in times.items():
        faster = [slow / own for slow, own in zip(times[DIFFUSION], seconds, strict=True)]
        rows.append((name, Spread.of(seconds).told(1000, 2), Spread.of(faster).told(1, 1)))
    return table(["", "ms a picture", "times as fast"], rows)


def _diffusion(steps: int, *, bf16: bool) -> Paint:
    denoiser, settings = tiny_denoiser(), SamplerSettings(steps, 3.0, scheduler="simple")

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> None:
        with torch.amp.autocast("cpu", torch.bfloat16, enabled=bf16):
            denoiser.generate(prompts, seeds, (SIZE, SIZE), settings)

    return draw


def _gan(family: Family, study: Study, taught: StyleSet) -> Paint:
    kind = CLIP if family.needs_vision else SMALL
    encoders = first_encoders(study, kind, taught, 0).requires_grad_(False).eval()
    family = replace(family, text_width=study.encoder_width)
    with seeded(0, "speed"):
        generator = family.build(vision_of(family, encoders)).generator.eval()
    return lambda prompts, seeds: generate(generator, encoders, prompts, seeds, batch=BATCH)


if __name__ == "__main__":
    main()
