"""Encoders that cells share, pretrained once and kept in a file, and the judge of R-precision."""

import json
import tempfile
import time
from pathlib import Path

from transformers import CLIPConfig, CLIPModel

from nsync.draws import derive_seed, seeded
from nsync.style_set import StyleSet
from nsync.supcon.clip_encoders import ClipEncoders, read_tokenizer
from nsync.supcon.encoder_file import encoders_metadata, load_encoders, save_encoders
from nsync.supcon.encoders import Encoders
from nsync.supcon.learner import ModulesLearned
from nsync.supcon.pretrain_settings import PretrainSettings
from nsync.supcon.pretraining import ENCODERS, pretrain
from nsync.supcon.small_encoders import SmallEncoders
from nsync.tiny import BASE_FOLDER

from .study import CLIP, SMALL, Judge, Pretraining, Study
from .world import judge_set, training_set


def make_encoders(study: Study, one: Pretraining | Judge, folder: Path) -> Path:
    """The file of these encoders, pretrained where `folder` has none by these settings."""
    file = folder / f"{'_'.join(map(str, (type(one).__name__.lower(), *one)))}.safetensors"
    is_judge = isinstance(one, Judge)
    settings = study.judge_settings() if is_judge else study.pretraining_settings(one)
    if not _made_by(settings, file):
        if is_judge:
            style_set, kind = judge_set(study, one.objects), SMALL
        else:
            style_set, kind = training_set(study, one.world, one.seed), one.encoders
        encoders = first_encoders(study, kind, style_set, settings.seed)
        _pretrain(settings, encoders, style_set, file)
    return file


def read_encoders(file: Path) -> tuple[Encoders, float]:
    """Frozen encoders from a file, and the CPU seconds that their pretraining took."""
    seconds = encoders_metadata(file)["training"]["seconds"]
    return load_encoders(file).requires_grad_(False), seconds


def first_encoders(study: Study, kind: str, style_set: StyleSet, seed: int) -> Encoders:
    """Untrained ones: small ones of our own, or a small CLIP, all of which is trained."""
    if kind == CLIP:
        return _first_clip(study, seed)
    captions = [item.caption for item in style_set.items]
    return SmallEncoders.fresh(captions, seed, study.image_size, study.encoder_width)


def _made_by(settings: PretrainSettings, file: Path) -> bool:
    told = settings.as_dict()
    return file.exists() and encoders_metadata(file)["training"]["settings"] == told


def _first_clip(study: Study, seed: int) -> ClipEncoders:
    tokenizer = read_tokenizer(BASE_FOLDER / "tokenizer")
    words = json.loads(tokenizer)["model"]["vocab"]
    sizes = {
        "hidden_size": study.clip.width,
        "intermediate_size": 4 * study.clip.width,
        "num_hidden_layers": study.clip.layers,
        "num_attention_heads": study.clip.heads,
    }
    end = words["<|endoftext|>"]
    start = words["<|startoftext|>"]
    told = {"vocab_size": len(words), "max_position_embeddings": 32, "eos_token_id": end}
    config = CLIPConfig(
        text_config=sizes | told | {"bos_token_id": start, "pad_token_id": end},
        vision_config=sizes
        | {"image_size": study.image_size, "patch_size": study.image_size // study.clip.grid},
        projection_dim=study.encoder_width,
    )
    with seeded(derive_seed(seed, "clip"), "weights"):
        return ClipEncoders(CLIPModel(config), tokenizer, trains_towers=True)


def _pretrain(
    settings: PretrainSettings, encoders: Encoders, style_set: StyleSet, file: Path
) -> None:
    begun = time.process_time()
    kept: dict[str, ModulesLearned] = {}

    def export(learned: ModulesLearned, steps: int) -> dict[str, Path]:
        kept[ENCODERS] = learned[ENCODERS]
        return {}

    with tempfile.TemporaryDirectory() as place:
        pretrain(settings, encoders, style_set, Path(place), export)
    training = {"settings": settings.as_dict(), "seconds": time.process_time() - begun}
    save_encoders(file, encoders, title=file.stem, training=training, learned=kept[ENCODERS])
