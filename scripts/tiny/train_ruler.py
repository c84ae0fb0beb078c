"""Train the ruler on renders of every style; print its accuracy on fresh ones.

usage: python scripts/tiny/train_ruler.py [--steps N] [--pictures N] [--later]

`--later` trains the ruler of StyleBench, of its later styles too, and begins with the shipped one.
"""

import argparse
import json
import math

import torch
import torch.nn.functional as F
from common import Run, derive_seed, draw_scenes, pictures
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.stylebench.later_styles import LATER, LATER_RULER_FILE, render
from nsync.tiny import RULER_FILE
from nsync.tiny.ruler import TABLES, Ruler
from nsync.tiny.world import STYLES


def weather(x: Tensor, g: torch.Generator) -> Tensor:
    """Small wear, as generated pictures have it: noise, softness, a shift of tone."""
    n = len(x)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    amount = 0.6 * torch.rand(n, 1, 1, 1, generator=g) * (torch.rand(n, 1, 1, 1, generator=g) < 0.5)
    x = x + (soft - x) * amount
    tone = 1 + 0.08 * torch.randn(n, 3, 1, 1, generator=g)
    noise = 0.04 * torch.rand(n, 1, 1, 1, generator=g) * torch.randn(x.shape, generator=g)
    return (x * tone + noise).clamp(0, 1)


def measure(ruler: Ruler, n: int, seed: int) -> dict[str, float]:
    """Accuracy per table on `n` fresh renders of every style, and the worst style's."""
    right: dict[str, list[float]] = {}
    for style in ruler.tables["style"]:
        scenes = draw_scenes(n, derive_seed(seed, style) % 2**31)
        reading = ruler.read(render(scenes, style, seed))
        rows = {"style": reading.style_hits(style)}
        rows |= {f: reading.content_hits(scenes, (f,)) for f in list(TABLES)[1:]}
        for name, hits in rows.items():
            right.setdefault(name, []).append(hits.float().mean().item())
    table = {name: sum(v) / len(v) for name, v in right.items()}
    for name, v in right.items():
        worst = ruler.tables["style"][v.index(min(v))]
        table[f"worst {name} ({worst})"] = min(v)
    return table


def begin_with(ruler: Ruler, other: Ruler) -> None:
    """Give the ruler all weights of one that knows the first of its styles: it is sooner there."""
    weights, own = other.state_dict(), ruler.state_dict()
    for name in ("heads.style.weight", "heads.style.bias"):
        weights[name] = torch.cat([weights[name], own[name][len(weights[name]) :]])
    ruler.load_state_dict(weights)


def main() -> None:
    """Train, measure, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--pictures", type=int, default=1500, help="per style")
    parser.add_argument(
        "--later", action="store_true", help="StyleBench's, of its later styles too"
    )
    args = parser.parse_args()
    torch.manual_seed(0)
    known, file = (STYLES | LATER, LATER_RULER_FILE) if args.later else (STYLES, RULER_FILE)
    ruler = Ruler(tuple(known))
    if args.later:
        begin_with(ruler, Ruler.load())
    optimizer = torch.optim.AdamW(ruler.parameters(), lr=2e-3, weight_decay=0.02)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    data, scenes, styles = pictures(tuple(known), args.pictures, 11, render)
    truth = torch.tensor([[getattr(s, f) for f in list(TABLES)[1:]] for s in scenes])
    truth = torch.cat([styles[:, None], truth], 1)
    run = Run("ruler_later" if args.later else "ruler", ruler, optimizer, args.steps, decay=0.99)
    for _, g, descend in run(lambda t: 0.5 + 0.5 * math.cos(math.pi * t) + 1e-3, seed=12):
        rows = torch.randint(len(data), (64,), generator=g)
        logits, _ = ruler(weather(data[rows] / 255.0, g))
        losses = [F.cross_entropy(logits[k], truth[rows, i]) for i, k in enumerate(TABLES)]
        descend(torch.stack(losses).sum())
    ruler.load_state_dict(run.average.weights)
    ruler.eval()
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in ruler.state_dict().items()},
        file,
        metadata={"styles": json.dumps(list(known))},
    )
    for name, value in measure(Ruler.load(file), 200, seed=99).items():
        print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    main()
