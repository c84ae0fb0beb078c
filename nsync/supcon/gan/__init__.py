"""Text-to-image GANs: families behind one contract, and what their training is made of.

`FAMILIES` names the settings of each family; their `build` gives the networks (`contract`).
`penalties` and `cross_entropy` are the losses, `augment` keeps a discriminator from learning a
small set by heart, and `averaging` holds the generator that samples are drawn with.
"""

from .attn_gan import AttnGan
from .contract import Family
from .dm_gan import DmGan
from .galip import Galip
from .ssa_gan import SsaGan

FAMILIES: dict[str, type[Family]] = {
    "SSA-GAN": SsaGan,
    "GALIP": Galip,
    "AttnGAN": AttnGan,
    "DM-GAN": DmGan,
}
"""By the names of their papers."""
