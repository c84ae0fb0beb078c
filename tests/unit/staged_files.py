"""Networks, inputs and losses for AttnGAN and DM-GAN; see `gan_files`.

`scripts/agreement/staged_gans.py` writes what the published code made of them into
`agreement/staged_gans.json`.
"""

import torch
from gan_files import COUNT, fill, normal
from gan_files import FIXTURES as OTHERS
from torch.nn.functional import adaptive_avg_pool2d

from nsync.supcon.gan.attn_gan import AttnGan
from nsync.supcon.gan.cross_entropy import discriminator_cross_entropy, generator_cross_entropy
from nsync.supcon.gan.dm_gan import DmGan
from nsync.supcon.losses import matching
from nsync.supcon.words import word_matching

FIXTURES = OTHERS.with_name("staged_gans.json")

_NARROW = {"width": 2, "noise": 7, "text_width": 12, "condition_width": 5}
FAMILIES = {
    "AttnGAN": AttnGan(**_NARROW, discriminator_width=3),
    "DM-GAN": DmGan(**_NARROW, discriminator_width=3),
}
"""At the pictures' published sizes, for which the published networks are written."""

LENGTHS = (5, 3, 4)
"""Words in the texts."""
LABELS = (3, 7, 3)
"""Of the items."""


def built(family):
    networks = family.build()
    fill(networks.generator)
    for judge in networks.discriminators:
        fill(judge)
    return networks


def told(family):
    """What a generator is given: noise, text, words, mask."""
    noise = normal("noise", COUNT, family.noise + family.condition_width)
    words = normal("words", COUNT, max(LENGTHS), family.text_width)
    return noise, normal("text", COUNT, family.text_width), words, mask()


def mask():
    return torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]


def regions_and_words(width, side):
    """Of pictures `[n, width, side, side]`, requiring gradients, and of texts, with their mask."""
    regions = normal("regions", COUNT, width, side, side) / 4
    return regions.requires_grad_(), normal("words", COUNT, max(LENGTHS), width) / 4, mask()


def rows(regions):
    """`[n, side * side, width]`."""
    return regions.flatten(2).transpose(1, 2)


def glance(pictures, width):
    """Stands for DAMSM's image encoder: regions `[n, width, 5, 5]` and a code `[n, width]`."""
    seen = adaptive_avg_pool2d(pictures, 5)
    seen = torch.cat([seen, 3 * seen.square()], 1)
    regions = torch.einsum("wc,nchv->nwhv", normal("glance", width, 6), seen)
    return regions, regions.tanh().mean((2, 3))


def discriminator_loss(judge, real, fake, text):
    """With mismatched texts as published: each picture's is the next one's."""
    seen, made = judge.features(judge.observe(real)), judge.features(judge.observe(fake))
    other = judge.judge(seen[:-1], text[1:])
    return discriminator_cross_entropy(judge.judge(seen, text), judge.judge(made, text), other)


def generator_loss(family, networks, painted, told):
    """All that a generator was published with: every stage, the last one's DAMSM, divergence."""
    _, text, words, mask = told
    total = painted.divergence.mean()
    for pictures, judge in zip(painted.images, networks.discriminators, strict=True):
        total += generator_cross_entropy(judge.judge(judge.features(pictures), text))
    regions, code = glance(painted.images[-1], family.text_width)
    labels = torch.tensor(LABELS)
    fine = word_matching(rows(regions), words, mask, labels, gamma3=50.0)
    return total + 5 * (2 * fine + 2 * matching(code, text, labels, temperature=0.1))


def kernel(network):
    """The weight of a discriminator's first convolution."""
    return next(value for value in network.parameters() if value.ndim == 4)
