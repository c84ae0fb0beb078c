"""Our GANs beside the published ones: random weights, equal on both sides.

A development job, for the references are needed for nothing else:

    git clone https://github.com/wtliao/text2image          # SSA-GAN, 3063e27
    git clone https://github.com/tobran/GALIP               # 35d0c2f
    git clone https://github.com/learn2phoenix/CSD          # 3a9df32, for OpenAI's CLIP in it
    python scripts/agreement/gans.py FOLDER_OF_THE_CLONES

The published networks are written for one picture size and one width of CLIP. SSA-GAN is compared
at its size and a small width. GALIP is compared with ViT-B/32's sizes, and, for the tests, with
the 768 of its source replaced by a small width. It fails where a gate is missed, and writes
`tests/unit/agreement/gans.json`: the figures, and what the references made of the inputs.
"""

import argparse
import ast
import contextlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "unit")]

import gan_files  # noqa: E402
from gan_files import FIXTURES, columns, fill, images, noise_and_text  # noqa: E402
from gan_names import (  # noqa: E402
    GALIP_CRITIC,
    GALIP_PAINTER,
    SSA_CRITIC,
    SSA_PAINTER,
    load,
    openai,
)
from record import Record, importable  # noqa: E402

from nsync.supcon.gan.galip import Galip  # noqa: E402
from nsync.supcon.gan.penalties import (  # noqa: E402
    discriminator_hinge,
    matching_aware_penalty,
)

GATE, EXACT = 1e-5, 1e-10
"""Largest difference by the largest value, in float32 and in float64."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clones", type=Path, help="folder with the reference repositories")
    clones = parser.parse_args().clones.resolve()
    record = Record()
    published = _losses(clones / "GALIP" / "code" / "lib" / "modules.py")
    _ssa_gan(record, clones, published)
    _galip(record, clones, published, gan_files.GALIP, width=32, heads=2)
    _galip(record, clones, published, Galip(width=16), width=768, heads=12)
    if not all(row["difference"] <= row["gate"] for row in record.figures):
        sys.exit("a gate is missed")
    versions = {name: version(name) for name in ("torch", "transformers")}
    content = {"versions": versions, "figures": record.figures, "fixtures": record.fixtures}
    FIXTURES.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _ssa_gan(record: Record, clones: Path, published: SimpleNamespace) -> None:
    """In float64; training first, whose batch statistics are what eval mode goes by."""
    family = gan_files.SSA_GAN
    ours, [judge] = family.build()
    with importable(clones / "text2image"):
        from model import NetD, NetG
    del sys.modules["model"]  # CLIP has one as well
    theirs, critic = NetG(family.width, family.noise).double(), NetD(family.width).double()
    load(theirs, fill(ours), SSA_PAINTER)
    load(critic, fill(judge), SSA_CRITIC)
    noise, text = noise_and_text(family)
    kept = {}
    for mode in ("train", "eval"):
        with torch.no_grad():
            [mine] = getattr(ours, mode)()(noise, text).images
            their, _ = getattr(theirs, mode)()(noise, text)
        compare(record, f"SSA-GAN pictures, {mode}", mine, their, EXACT)
        kept[f"images_{mode}"] = columns(their)
    pictures = images(family.image_size)
    seen = critic(pictures)
    score = critic.COND_DNET(seen, text)
    _judged(record, "SSA-GAN", judge, pictures, text, seen, score, EXACT)
    kept |= {"features": columns(seen.mean((2, 3))), "score": columns(score)}

    def scored(observed: Tensor, told: Tensor) -> Tensor:
        return critic.COND_DNET(critic(observed), told)

    kept |= _penalty(record, "SSA-GAN", judge, scored, pictures, text, published)
    record.fixtures["ssa_gan"] = kept


def _galip(
    record: Record, clones: Path, published: SimpleNamespace, family: Galip, width: int, heads: int
) -> None:
    """Through the tower in float32, for OpenAI's layer norms compute in it; after it in float64."""
    name = f"GALIP, tower of width {width}"
    source = _galip_module(clones / "GALIP" / "code" / "models" / "GALIP.py", width)
    with importable(clones / "CSD" / "models" / "clip"):  # its package wants a tokenizer's library
        from model import VisionTransformer

    del sys.modules["model"]
    clip = VisionTransformer(224, 32, width, 12, heads, 512)
    vision = gan_files.tower(width, heads=heads)
    clip.load_state_dict(openai(vision, clip.proj))
    clip = SimpleNamespace(visual=clip)
    ours, [judge] = family.build(vision)
    fill(ours), fill(judge)
    theirs = source.NetG(family.width, family.noise, 512, 256, 3, False, clip)
    critic = source.NetD(family.width, 256, 3, False)
    logits = source.NetC(family.width, 512, False)
    load(theirs, ours, GALIP_PAINTER, beside="mapping.CLIP_ViT")
    load(critic, judge, GALIP_CRITIC)
    load(logits, judge, (("joint_conv", "score"),))
    noise, text = (each.float() for each in noise_and_text(family))
    with torch.no_grad():
        [mine], their = ours.float()(noise, text).images, theirs(noise, text)
    compare(record, f"{name}, pictures", mine, their, GATE)
    pictures = images(224).float()
    # Theirs maps to 0..1 twice: given 2 x - 1, its tower sees what ours sees, given x.
    with torch.no_grad():
        observed, _ = source.CLIP_IMG_ENCODER(clip)(2 * pictures - 1)
    mine = judge.float().observe(pictures)
    compare(record, f"{name}, what the tower sees", mine, observed, GATE)
    observed, text = observed.double(), text.double()
    critic.double(), logits.double(), judge.double()
    seen = critic(observed)
    score = logits(seen, text)
    _judged(record, name, judge, observed, text, seen, score, EXACT)
    penalty = _penalty(
        record, name, judge, lambda x, told: logits(critic(x), told), observed, text, published
    )
    if family == gan_files.GALIP:
        record.fixtures["galip"] = penalty | {
            "images": columns(their), "observed": columns(observed),
            "features": columns(seen.mean((2, 3))), "score": columns(score),
        }  # fmt: skip


def _judged(
    record: Record,
    name: str,
    judge: nn.Module,
    observed: Tensor,
    text: Tensor,
    seen: Tensor,
    score: Tensor,
    gate: float,
) -> None:
    features = judge.features(observed)
    judged = judge.judge(features, text)
    compare(record, f"{name}, feature maps", features, seen, gate)
    compare(record, f"{name}, features", judged.features, seen.mean((2, 3)), gate)
    compare(record, f"{name}, scores", judged.score[:, None], score.flatten(1), gate)


def _penalty(
    record: Record,
    name: str,
    judge: nn.Module,
    theirs: object,
    observed: Tensor,
    text: Tensor,
    published: SimpleNamespace,
) -> dict:
    """Penalty and hinge loss by GALIP's functions, and one gradient that a step would take."""
    given = [each.detach().clone().requires_grad_() for each in (observed, text)]
    weight = judge.score[0].weight
    mine = judge.judge(judge.features(given[0]), given[1]).score
    penalty = matching_aware_penalty(mine, given)
    [gradient] = torch.autograd.grad(penalty, weight, retain_graph=True)
    score = theirs(*given)
    expected = published.MA_GP_FP32(*given, score)
    parameter = next(p for p in _parameters(theirs) if p.shape == weight.shape)
    [slope] = torch.autograd.grad(expected, parameter)
    compare(record, f"{name}, gradient penalty", penalty.view(1, 1), expected.view(1, 1), EXACT)
    compare(record, f"{name}, its gradient", gradient[None], slope[None], EXACT)
    rolled = text.roll(-1, 0)
    fake = judge.judge(judge.features(observed.flip(0)), text).score
    other = judge.judge(judge.features(observed), rolled).score
    hinge = discriminator_hinge(mine, fake, other)
    parts = [
        published.hinge_loss(theirs(*pair), negtive)
        for pair, negtive in (
            ((observed, text), False), ((observed.flip(0), text), True), ((observed, rolled), True),
        )
    ]  # fmt: skip
    total = parts[0] + (parts[1] + parts[2]) / 2
    compare(record, f"{name}, hinge loss", hinge.view(1, 1), total.view(1, 1), EXACT)
    return {"penalty": expected.item(), "penalty_gradient": columns(slope[None])}


def compare(record: Record, check: str, ours: Tensor, theirs: Tensor, gate: float) -> None:
    """By the largest value of theirs; the rows of several items have to differ."""
    if ours.shape != theirs.shape:
        sys.exit(f"{check}: {tuple(ours.shape)} is not {tuple(theirs.shape)}")
    if len(ours) == 1:
        difference = (ours - theirs).detach().abs().max() / theirs.detach().abs().max()
        return record.add(check, float(difference), gate)
    ours, theirs = (each.detach().flatten(1) for each in (ours, theirs))
    return record.compare(check, ours, theirs, gate, relative=True)


def _parameters(scored: object) -> list[nn.Parameter]:
    """Of the networks that a function closes over."""
    networks = [cell.cell_contents for cell in scored.__closure__]
    return [p for network in networks for p in network.parameters()]


def _galip_module(path: Path, width: int) -> ModuleType:
    """Their module, with the width of its CLIP replaced, and without its package's helpers."""
    library = ModuleType("lib.utils")
    library.dummy_context_mgr = contextlib.nullcontext
    module = ModuleType("galip_reference")
    text = path.read_text(encoding="utf-8").replace("768", str(width))
    with importable(**{"lib": ModuleType("lib"), "lib.utils": library}):
        exec(compile(text, str(path), "exec"), module.__dict__)  # noqa: S102
    return module


def _losses(path: Path) -> SimpleNamespace:
    """Two functions of a module that imports much; without their move to a GPU."""
    text = path.read_text(encoding="utf-8").replace(".cuda()", "")
    wanted = ("MA_GP_FP32", "hinge_loss")
    found = [node for node in ast.parse(text).body if getattr(node, "name", "") in wanted]
    space = {"torch": torch, "F": F}
    exec(compile(ast.Module(found, []), str(path), "exec"), space)  # noqa: S102
    return SimpleNamespace(**{name: space[name] for name in wanted})


if __name__ == "__main__":
    main()
