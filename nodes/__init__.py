"""The ComfyUI side: every node that the pack offers, in the order of a graph."""

from comfy_api.latest import ComfyExtension, io

from .caption_images import CaptionImages
from .gan_model import LoadT2IGAN
from .gan_sampler import T2IGANSampler
from .gan_trainer import SupConGANTrainer
from .negative_set import NegativeSetGenerator
from .style_comparison import StyleComparison
from .style_encoder import LoadStyleEncoder, register_folder
from .style_evaluator import StyleEvaluator
from .style_set import StyleSet
from .style_watch import StyleWatch
from .supcon_encoders import LoadSupConEncoders
from .supcon_pretrainer import SupConPretrainer
from .tiny_base import TinyBase, TinyStylePictures
from .tiny_world_pictures import TinyWorldPictures
from .trained_files import register_folders
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
    TinyWorldPictures,
    SupConPretrainer,
    LoadSupConEncoders,
    SupConGANTrainer,
    LoadT2IGAN,
    T2IGANSampler,
]

register_folder()
register_folders()


class NsyncExtension(ComfyExtension):
    """The pack, as ComfyUI asks for it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
