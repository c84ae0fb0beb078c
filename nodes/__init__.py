"""The ComfyUI side: every node that the pack offers, in the order of a graph."""

from comfy_api.latest import ComfyExtension, io

from .evaluation.comparison import StyleComparison
from .evaluation.encoder import LoadStyleEncoder, register_folder
from .evaluation.evaluator import StyleEvaluator
from .evaluation.watch import StyleWatch
from .sets.caption_images import CaptionImages
from .sets.negative_set import NegativeSetGenerator
from .sets.style_set import StyleSet
from .supcon.encoders import LoadSupConEncoders
from .supcon.gan_model import LoadT2IGAN
from .supcon.gan_sampler import T2IGANSampler
from .supcon.gan_trainer import SupConGANTrainer
from .supcon.pretrainer import SupConPretrainer
from .supcon.trained_files import register_folders
from .tiny.base import TinyBase, TinyStylePictures
from .tiny.world_pictures import TinyWorldPictures
from .training.options import TrainingOptions
from .training.trainer import ContrastiveLoRATrainer

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
