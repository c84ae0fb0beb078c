"""Does the base obey? Draw captions with the diffusers pipeline and let the ruler read them.

usage: python scripts/tiny/measure_base.py [--pictures 200] [--sheet FILE.png] [--base FOLDER]

Prints the share of pictures with the right shape and colour, with the named pretraining style,
and with any held-out style when the prompt names one, an unknown word or a generic word.
"""

import argparse
from pathlib import Path

import torch
from common import draw_scenes, generator
from diffusers import StableDiffusionPipeline
from torch import Tensor
from torchvision.utils import save_image

from nsync.tiny import BASE_FOLDER
from nsync.tiny.ruler import TABLES, Ruler
from nsync.tiny.scenes import Scene
from nsync.tiny.styles import GENERIC_WORDS
from nsync.tiny.world import HELD_OUT_STYLES, PRETRAIN_STYLES

STEPS, GUIDANCE = 20, 3.0


def draw(pipeline: StableDiffusionPipeline, prompts: list[str], seed: int) -> Tensor:
    """Pictures `[n, 3, 64, 64]` of the prompts; the i-th has the noise of (seed, i)."""
    shots = []
    for start in range(0, len(prompts), 25):
        part = prompts[start : start + 25]
        seeds = [generator(seed, start + i) for i in range(len(part))]
        shots.append(pipeline(
            part, height=64, width=64, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
            generator=seeds, output_type="pt",
        ).images)  # fmt: skip
    return torch.cat(shots)


def named(scenes: list[Scene], words: tuple[str, ...]) -> list[str]:
    """Prompts that name the words in turn."""
    return [
        f"{s.caption()} in the style of {words[i % len(words)].replace('_', ' ')}"
        for i, s in enumerate(scenes)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument(
        "--base", type=Path, default=BASE_FOLDER, help="the shipped one, if not given"
    )
    args = parser.parse_args()
    pipeline = StableDiffusionPipeline.from_pretrained(args.base, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    ruler, n = Ruler.load(), args.pictures
    scenes = draw_scenes(n, seed=77)
    pictures = draw(pipeline, named(scenes, PRETRAIN_STYLES), seed=78)
    reading = ruler.read(pictures)
    truth = torch.tensor([i % len(PRETRAIN_STYLES) for i in range(n)])
    hits = reading.indices("style") == truth
    print(f"named style {hits.float().mean():.3f}")
    for i, style in enumerate(PRETRAIN_STYLES):
        print(f"  {style} {hits[truth == i].float().mean():.3f}")
    print(
        f"shape and colour {reading.content_hits(scenes, ('shape', 'colour')).float().mean():.3f}"
    )
    for field in list(TABLES)[1:]:
        print(f"  {field} {reading.content_hits(scenes, (field,)).float().mean():.3f}")
    first_held_out = len(PRETRAIN_STYLES)
    for what, words in (
        ("held-out names", HELD_OUT_STYLES), ("unknown word", ("sks",)),
        ("generic words", tuple(GENERIC_WORDS)),
    ):  # fmt: skip
        shots = draw(pipeline, named(scenes, words), seed=79)
        read = ruler.read(shots).indices("style")
        shares = [
            (read == i).float().mean().item() for i in range(first_held_out, len(TABLES["style"]))
        ]
        print(f"{what}: one held-out style at most {max(shares):.3f}, all {sum(shares):.3f}")
        pictures = torch.cat([pictures, shots])
    if args.sheet:
        rows = torch.cat([p[:32] for p in pictures.split(n)])
        save_image(rows, args.sheet, nrow=16)


if __name__ == "__main__":
    main()
