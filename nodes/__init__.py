"""The ComfyUI side: every node that the pack offers, in the order of a graph."""

from comfy_api.latest import ComfyExtension, io

from .caption_images import CaptionImages
from .negative_set import NegativeSetGenerator
from .style_set import StyleSet
from .tiny_base import TinyBase, TinyStylePictures
from .trainer import ContrastiveLoRATrainer
from .training_options import TrainingOptions

NODES: list[type[io.ComfyNode]] = [
    TinyBase,
    TinyStylePictures,
    CaptionImages,
    StyleSet,
    NegativeSetGenerator,
    ContrastiveLoRATrainer,
    TrainingOptions,
]


class NsyncExtension(ComfyExtension):
    """The pack, as ComfyUI asks for it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
