"""Train the tiny base's autoencoder: 64 px pictures to 16x16x12 latents and back.

usage: python scripts/tiny/train_autoencoder.py [--steps N] [--batch N] [--pictures N]

It sees renders of the pretraining styles only, recoloured, turned and cut into one another by
random textures, so that it can carry any picture of this size; no held-out style is shown.
Result: nsync/tiny/base/vae. Running it again resumes; delete build/tiny to start over.
"""

import argparse
import math

import torch
import torch.nn.functional as F
from common import ROOT, Run, pictures
from diffusers import AutoencoderKL
from torch import Tensor

from nsync.tiny.world import PRETRAIN_STYLES

CONFIG = {
    "block_out_channels": (32, 32, 64), "layers_per_block": 1, "latent_channels": 12,
    "norm_num_groups": 4, "sample_size": 64,
    "down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3,
}  # fmt: skip
KL_WEIGHT = 5e-5
CROP = 32
"""Most of the training sees crops of this side: four times as many steps for the same time."""


def disguise(x: Tensor, g: torch.Generator) -> Tensor:
    """Recolour, turn and interleave pictures `[n, 3, 64, 64]` so that textures become abstract."""
    n = len(x)
    matrix = torch.eye(3) + 0.7 * torch.randn(n, 3, 3, generator=g) * (
        torch.rand(n, 1, 1, generator=g) < 0.6
    )
    tint = torch.einsum("nij,njhw->nihw", matrix, x - 0.5) + 0.5
    tint = tint + 0.25 * torch.randn(n, 3, 1, 1, generator=g) * (
        torch.rand(n, 1, 1, 1, generator=g) < 0.4
    )
    if int(torch.randint(2, (), generator=g)):
        tint = tint.transpose(2, 3)
    tint = tint.flip(2 + int(torch.randint(2, (), generator=g)))
    k = torch.randn(2, n, 1, 1, generator=g) * 0.9
    y, x_ = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    wave = torch.sin(k[0] * x_ + torch.rand(n, 1, 1, generator=g) * 6) + torch.sin(k[1] * y)
    cut = (wave * 3 + torch.randn(n, 1, 1, generator=g)).clamp(0, 1).unsqueeze(1)
    some = (torch.rand(n, 1, 1, 1, generator=g) < 0.5).float()
    return (tint + (tint.roll(1, 0) - tint) * cut * some).clamp(0, 1)


def rate(done: float) -> float:
    """Short warm-up, then cosine to nothing."""
    return min(1, done / 0.02) * (0.5 + 0.5 * math.cos(math.pi * done)) + 1e-3


def main() -> None:
    """Train, measure the latents' scale, write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3300)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=1024, help="per style")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = AutoencoderKL(**CONFIG)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1.5e-3, betas=(0.9, 0.98), weight_decay=1e-4
    )
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    data, _, _ = pictures(PRETRAIN_STYLES, args.pictures, seed=1)
    run = Run("autoencoder", model, optimizer, args.steps, decay=0.995)
    for step, g, descend in run(rate, seed=2):
        rows = torch.randint(len(data), (args.batch,), generator=g)
        x = data[rows] / 255.0
        half = args.batch // 3
        x = torch.cat([x[:half], disguise(x[half:], g)]) * 2 - 1
        if step < 0.88 * args.steps:
            top, left = torch.randint(65 - CROP, (2,), generator=g).tolist()
            x = x[..., top : top + CROP, left : left + CROP]
        with torch.autocast("cpu", torch.bfloat16):
            posterior = model.encode(x).latent_dist
            z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=g)
            y = model.decode(z).sample
        y = y.float()
        fine = F.l1_loss(y.diff(dim=2), x.diff(dim=2)) + F.l1_loss(y.diff(dim=3), x.diff(dim=3))
        kl = (
            posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()
        ).mean()
        descend(F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + 0.3 * fine + KL_WEIGHT * kl)
    model.load_state_dict(run.average.weights)
    with torch.no_grad():
        sample = data[torch.randperm(len(data), generator=torch.Generator().manual_seed(3))[:256]]
        z = model.encode(sample / 127.5 - 1).latent_dist.mean
        error = F.mse_loss(model.decode(z).sample.clamp(-1, 1), sample / 127.5 - 1)
    print(
        f"latent std {float(z.std()):.4f}, per channel {z.std((0, 2, 3))}, "
        f"psnr {10 * math.log10(4 / float(error)):.2f} dB"
    )
    model.register_to_config(scaling_factor=round(1 / float(z.std()), 5))
    model.half().save_pretrained(ROOT / "nsync" / "tiny" / "base" / "vae")


if __name__ == "__main__":
    main()
