"""Train the tiny base: text encoder and UNet, by flow matching in the autoencoder's latents.

usage: python scripts/tiny/train_base.py [--steps N] [--batch N] [--pictures N] [--seed N]

Needs nsync/tiny/base/vae (train_autoencoder.py). Sees the eight pretraining styles only, under
captions of `nsync.tiny.captions`. x_t = (1 - t) x_0 + t noise, the target is noise - x_0
(rectified flow, arXiv 2209.03003), t logit-normal (arXiv 2403.03206), weights averaged. The first
1,400 steps centre t at 1/2, where strokes are decided; the rest lean to high t, where place and
count are: with t centred throughout, the base drew well and put things anywhere.
Result: nsync/tiny/base; with a seed but 0, of other weights, pictures and noise, build/tiny/base_N.
Running it again resumes; `--export` writes the folder as it stands.
"""

import argparse
import json
import math
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from common import BUILD, ROOT, Run, generator, pictures
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from make_tokenizer import make_tokenizer
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from nsync.tiny import BASE_FOLDER
from nsync.tiny.captions import Chances, training_caption
from nsync.tiny.world import PRETRAIN_STYLES

UNET = {
    "sample_size": 16, "in_channels": 12, "out_channels": 12, "block_out_channels": (64, 128),
    "layers_per_block": 1, "cross_attention_dim": 128, "attention_head_dim": (2, 4),
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "use_linear_projection": True, "norm_num_groups": 16,
}  # fmt: skip
WINDOW = 32
STROKES = 1400


class Base(nn.Module):
    """The two trained parts, as one module for the optimizer."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder = CLIPTextModel(CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384,
            num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=WINDOW,
            projection_dim=128, hidden_act="quick_gelu", bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        ))  # fmt: skip
        self.unet = UNet2DConditionModel(**UNET)

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """Velocity `[n, 12, 16, 16]` at times `t` `[n]` in 0..1."""
        context = self.text_encoder(tokens).last_hidden_state
        return self.unet(x, t * 1000, context).sample


def latents_of(vae: AutoencoderKL, shots: Tensor) -> Tensor:
    """Scaled latents of uint8 pictures, float32."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        parts = [vae.encode(p / 127.5 - 1).latent_dist.mean.float() for p in shots.split(64)]
    return torch.cat(parts) * vae.config.scaling_factor


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token ids `[n, 32]`."""
    return tokenizer(
        texts, padding="max_length", max_length=WINDOW, truncation=True, return_tensors="pt"
    ).input_ids


def rate(done: float, steps: int) -> float:
    """Warm-up, 7/12 of a half cosine over the first 1,400 steps, the other 5/12 over the rest."""
    step = done * steps
    turn = 7 * min(step, STROKES) / STROKES + 5 * max(0, step - STROKES) / (steps - STROKES)
    return min(1, step / 48) * (0.5 + 0.5 * math.cos(math.pi * turn / 12)) + 1e-3


def times(step: int, n: int, g: torch.Generator) -> Tensor:
    """Noise levels `[n]` in 0..1 of a step."""
    centre, width = (0.0, 1.0) if step < STROKES else (0.9, 1.3)
    return torch.sigmoid(centre + width * torch.randn(n, generator=g))


def export(base: Base, vae: AutoencoderKL, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write the pipeline folder in fp16."""
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0,
        solver_order=2, lower_order_final=True,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=vae, text_encoder=base.text_encoder, tokenizer=tokenizer, unet=base.unet,
        scheduler=scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).to(dtype=torch.float16).save_pretrained(folder)  # fmt: skip
    config = folder / "vae" / "config.json"  # it tells the folder it was loaded from
    told = json.loads(config.read_text())
    told.pop("_name_or_path", None)
    config.write_text(json.dumps(told, indent=2) + "\n")
    for name in ("vocab.json", "merges.txt"):  # what transformers before 5 reads
        shutil.copy(BUILD / "tokenizer" / name, folder / "tokenizer")


def main() -> None:
    """Train, write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--pictures", type=int, default=3200, help="per style")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", action="store_true", help="write the folder, train nothing")
    args = parser.parse_args()
    name, seed = (f"base_{args.seed}", 100 * args.seed) if args.seed else ("base", 0)
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(BUILD / "tokenizer", WINDOW)
    vae = AutoencoderKL.from_pretrained(
        ROOT / "nsync" / "tiny" / "base" / "vae", torch_dtype=torch.float32
    )
    base = Base(tokenizer)
    optimizer = torch.optim.AdamW(
        base.parameters(), lr=1.2e-3, betas=(0.9, 0.98), weight_decay=1e-3
    )
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    run = Run(name, base, optimizer, args.steps, decay=0.998)
    if not args.export:
        shots, scenes, styles = pictures(PRETRAIN_STYLES, args.pictures, seed + 21)
        latents, chances = latents_of(vae, shots), Chances()
        for step, g, descend in run(lambda done: rate(done, args.steps), seed + 22):
            rows = torch.randint(len(latents), (args.batch,), generator=g)
            texts = [
                training_caption(scenes[i], PRETRAIN_STYLES[styles[i]], chances, g) for i in rows
            ]
            x = latents[rows]
            t = times(step, args.batch, g)
            noise = torch.randn(x.shape, generator=generator(seed + 22, step, "noise"))
            at = t.view(-1, 1, 1, 1)
            with torch.autocast("cpu", torch.bfloat16):
                velocity = base((1 - at) * x + at * noise, t, tokenize(tokenizer, texts))
            descend(F.mse_loss(velocity.float(), noise - x))
    base.load_state_dict(run.average.weights)
    export(base, vae, tokenizer, BUILD / name if args.seed else BASE_FOLDER)


if __name__ == "__main__":
    main()
