"""AttnGAN and DM-GAN beside ours, losses included: random weights, equal on both sides.

A development job, for the references are needed for nothing else:

    git clone https://github.com/taoxugit/AttnGAN           # 0d000e6
    git clone https://github.com/MinfengZhu/DM-GAN          # d515995
    python scripts/agreement/staged_gans.py FOLDER_OF_THE_CLONES

Their code is written for Python 2.7 and torch 0.4; `CHANGES` lets it run today, takes the draw of
the conditioning augmentation from us, and gives each item its own mask in the attention. Compared
at the published picture sizes, at a small width and at the published ones, in float64. It fails
where a gate is missed, and writes `tests/unit/agreement/staged_gans.json`: the figures, and what
the references made of the inputs at the small width.
"""

import argparse
import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "unit")]

import staged_files  # noqa: E402
from gan_files import columns, images  # noqa: E402
from gan_names import ATTN_CRITICS, ATTN_PAINTER, DM_CRITICS, DM_PAINTER, load  # noqa: E402
from gans import EXACT, compare  # noqa: E402
from record import Record  # noqa: E402

from nsync.supcon.gan.attn_gan import AttnGan  # noqa: E402
from nsync.supcon.gan.contract import Painted  # noqa: E402
from nsync.supcon.gan.dm_gan import DmGan  # noqa: E402
from nsync.supcon.gan.stages import Staged  # noqa: E402
from nsync.supcon.words import word_matching  # noqa: E402

CHANGES = (
    ("mask = self.mask.repeat(queryL, 1)", "mask = self.mask.repeat_interleave(queryL, 0)"),
    ("torch.FloatTensor(std.size()).normal_()", "cfg.DRAWN"),
    ("torch.ByteTensor(masks)", "torch.from_numpy(masks).bool()"),
    (".data[0]", ".item()"),
)
FILES = ("spectral.py", "GlobalAttention.py", "model.py", "miscc/losses.py")
TABLES = {"AttnGAN": (ATTN_PAINTER, ATTN_CRITICS), "DM-GAN": (DM_PAINTER, DM_CRITICS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clones", type=Path, help="folder with the reference repositories")
    clones = parser.parse_args().clones.resolve()
    warnings.filterwarnings("ignore", "Implicit dimension choice")
    record = Record()
    for name, published in (("AttnGAN", AttnGan()), ("DM-GAN", DmGan())):
        small = staged_files.FAMILIES[name]
        record.fixtures[name] = _family(record, clones / name / "code", name, small)
        _family(record, clones / name / "code", name, published)
    _words(record, _published(clones / "AttnGAN" / "code", AttnGan()))
    if not all(row["difference"] <= row["gate"] for row in record.figures):
        sys.exit("a gate is missed")
    versions = {"torch": version("torch")}
    content = {"versions": versions, "figures": record.figures, "fixtures": record.fixtures}
    staged_files.FIXTURES.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _family(record: Record, code: Path, name: str, family: Staged) -> dict:
    title = f"{name}, width {family.width}"
    ours, theirs = staged_files.built(family), _published(code, family)
    painter, critics = TABLES[name]
    load(theirs.generator, ours.generator, painter)
    for judge, critic, table in zip(ours.discriminators, theirs.critics, critics, strict=True):
        load(critic, judge, table)
    told, kept = staged_files.told(family), {}
    for mode in ("eval", "train"):
        mine, other = getattr(ours.generator, mode)()(*told), _paint(theirs, told, family, mode)
        for k, pair in enumerate(zip(mine.images, other.images, strict=True)):
            compare(record, f"{title}, pictures {k + 1}, {mode}", *pair, EXACT)
            kept[f"images_{mode}_{k + 1}"] = columns(pair[1])
    divergences = (each.divergence[:, None] for each in (mine, other))
    compare(record, f"{title}, divergence", *divergences, EXACT)
    for k, pair in enumerate(zip(ours.discriminators, theirs.critics, strict=True)):
        pictures = images(family.sides[k])
        found = _judged(record, f"{title}, stage {k + 1}", pair, pictures, told[1], theirs.losses)
        kept |= {f"{key}_{k + 1}": value for key, value in found.items()}
    # Last, for it moves the discriminators' running statistics.
    kept["generator"] = _generator_step(record, title, family, (ours, theirs), (mine, other))
    return kept


def _paint(theirs: SimpleNamespace, told: tuple, family: Staged, mode: str) -> Painted:
    """Their generator; the divergence item by item, of which theirs is the mean."""
    noise, text, words, mask = told
    theirs.cfg.DRAWN = noise[:, family.noise :]
    given = [noise[:, : family.noise], text, words.transpose(1, 2), ~mask]
    if isinstance(family, DmGan):
        given.append(None)  # the lengths, which it asks for and does not use
    images, _, mean, log_variance = getattr(theirs.generator, mode)()(*given)
    each = [theirs.losses.KL_loss(*item) for item in zip(mean, log_variance, strict=True)]
    return Painted(tuple(images), torch.stack(each))


def _generator_step(
    record: Record, title: str, family: Staged, both: tuple, painted: tuple[Painted, Painted]
) -> dict:
    """A generator's whole loss, and a gradient of it."""
    (ours, theirs), (mine, other) = both, painted
    told = staged_files.told(family)
    total = staged_files.generator_loss(family, ours, mine, told)
    ones = torch.ones(len(told[1]), dtype=torch.float64)
    expected, _ = theirs.losses.generator_loss(
        theirs.critics,
        lambda pictures: staged_files.glance(pictures, family.text_width),
        list(other.images),
        ones,
        told[2].transpose(1, 2),
        told[1],
        torch.arange(len(ones)),
        torch.tensor(staged_files.LENGTHS),
        np.array(staged_files.LABELS),
    )
    expected = expected + other.divergence.mean()
    pairs = ((total, ours.generator.start[0]), (expected, theirs.generator.h_net1.fc[0]))
    return _step(record, f"{title}, generator's loss", [(a, b.weight) for a, b in pairs])


def _judged(
    record: Record,
    stage: str,
    pair: tuple[nn.Module, nn.Module],
    pictures: Tensor,
    text: Tensor,
    losses: ModuleType,
) -> dict:
    """Judgements in eval mode, and a discriminator's loss with a gradient in training."""
    judge, critic = (each.eval() for each in pair)
    seen, maps = critic(pictures), judge.features(pictures)
    compare(record, f"{stage}, feature maps", maps, seen, EXACT)
    mine = judge.judge(maps, text)
    asked = {"score": critic.COND_DNET(seen, text), "unconditional": critic.UNCOND_DNET(seen)}
    for name, values in asked.items():
        ours = getattr(mine, name).sigmoid()[:, None]
        compare(record, f"{stage}, {name}", ours, values[:, None], EXACT)
    judge, critic = (each.train() for each in pair)
    fakes, ones = pictures.flip(0, 2), pictures.new_ones(len(pictures))
    total = staged_files.discriminator_loss(judge, pictures, fakes, text)
    expected = losses.discriminator_loss(critic, pictures, fakes, text, ones, 0 * ones)
    expected = expected[0] if isinstance(expected, tuple) else expected  # DM-GAN's has a text, too
    sides = [(total, staged_files.kernel(judge)), (expected, staged_files.kernel(critic))]
    kept = {name: columns(values[:, None]) for name, values in asked.items()}
    kept["features"] = columns(seen.mean((2, 3)))
    return kept | {"loss": _step(record, f"{stage}, discriminator's loss", sides)}


def _step(record: Record, title: str, sides: list[tuple[Tensor, Tensor]]) -> dict:
    """A loss and its gradient by a weight, both ours and theirs; theirs is kept."""
    values = [loss.view(1, 1) for loss, _ in sides]
    slopes = [torch.autograd.grad(loss, weight)[0] for loss, weight in sides]
    compare(record, title, *values, EXACT)
    compare(record, f"{title}, gradient", *(s.reshape(1, -1) for s in slopes), EXACT)
    return {"value": values[1].item(), "gradient": columns(slopes[1][None])}


def _words(record: Record, theirs: SimpleNamespace) -> None:
    """The loss of words alone, at the size of DAMSM: 17 x 17 regions of 256 numbers."""
    mine, words, mask = staged_files.regions_and_words(256, 17)
    other, turned, count = mine.detach().clone().requires_grad_(), words.transpose(1, 2), len(words)
    matches, lengths = torch.arange(count), torch.tensor(staged_files.LENGTHS)
    for name, labels in (("without", None), ("with", staged_files.LABELS)):
        given, ids = (None, None) if labels is None else (torch.tensor(labels), np.array(labels))
        total = 2 * word_matching(staged_files.rows(mine), words, mask, given, gamma3=50.0)
        both = theirs.losses.words_loss(other, turned, matches, lengths, ids, count)[:2]
        title, sides = f"Words' matching loss, {name} labels", [(total, mine), (sum(both), other)]
        record.fixtures[f"words_{name}_labels"] = _step(record, title, sides)


def _published(code: Path, family: Staged) -> SimpleNamespace:
    """Their modules with `CHANGES`, and untrained networks of the family's sizes, in float64."""
    space = SimpleNamespace(cfg=_config(family))
    config = ModuleType("miscc.config")
    config.cfg = space.cfg
    stubs = {"miscc": ModuleType("miscc"), "miscc.config": config}
    with patch.dict(sys.modules, stubs):
        for path in (code / name for name in FILES):
            if not path.exists():  # AttnGAN has no spectral norm
                continue
            text = path.read_text(encoding="utf-8")
            for old, new in CHANGES:
                text = text.replace(old, new)
            module = sys.modules[path.stem] = ModuleType(path.stem)
            exec(compile(text, str(path), "exec"), module.__dict__)  # noqa: S102
            setattr(space, path.stem, module)
    space.generator = space.model.G_NET().double()
    made = (space.model.D_NET64, space.model.D_NET128, space.model.D_NET256)
    space.critics = [each().double() for each in made]
    return space


def _config(family: Staged) -> SimpleNamespace:
    """Their `cfg`."""
    gammas = dict(zip(("GAMMA1", "GAMMA2", "GAMMA3"), (4.0, 5.0, 10.0), strict=True))
    return SimpleNamespace(
        CUDA=False,
        TEXT=SimpleNamespace(EMBEDDING_DIM=family.text_width),
        GAN=SimpleNamespace(
            CONDITION_DIM=family.condition_width,
            Z_DIM=family.noise,
            GF_DIM=family.width,
            DF_DIM=family.discriminator_width,
            R_NUM=family.residual_blocks,
        ),
        TREE=SimpleNamespace(BRANCH_NUM=family.stages),
        TRAIN=SimpleNamespace(SMOOTH=SimpleNamespace(**gammas, LAMBDA=5.0)),
    )


if __name__ == "__main__":
    main()
