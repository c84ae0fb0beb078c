"""The ComfyUI side: every node that the pack offers, in the order of a graph."""

from comfy_api.latest import ComfyExtension, io

from .caption_images import CaptionImages
from .negative_set import NegativeSetGenerator
from .style_comparison import StyleComparison
from .style_encoder import LoadStyleEncoder, register_folder
from .style_evaluator import StyleEvaluator
from .style_set import StyleSet
from .style_watch import StyleWatch
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
    LoadStyleEncoder,
    StyleWatch,
    StyleComparison,
    StyleEvaluator,
]

register_folder()


class NsyncExtension(ComfyExtension):
    """The pack, as ComfyUI asks for it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
