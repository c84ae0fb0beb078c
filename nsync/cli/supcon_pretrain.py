"""Teach a pair of encoders which picture and text belong together, and which share a label.

What `nsync supcon gan` needs first. Pictures have the names of their folders for labels.
"""

from dataclasses import dataclass, field
from pathlib import Path

from ..files import numbered
from ..names import check_name, export_title
from ..runs.folder import RunFolder
from ..runs.judgements import Judgement, one_of
from ..runs.recipe import ANEW, CONTINUE, run_place, to_train_in
from ..runs.standing import check_before_pictures
from ..supcon.clip_encoders import ClipEncoders
from ..supcon.encoder_file import save_encoders
from ..supcon.encoders import Encoders
from ..supcon.labels import read_labels
from ..supcon.learner import ModulesLearned
from ..supcon.pretrain_settings import PretrainSettings
from ..supcon.pretraining import ENCODERS, base_config, pretrain
from ..supcon.small_encoders import SmallEncoders
from . import plan
from .main import Outcome
from .models import device_of
from .progress import items, steps
from .runs import ended
from .sections import AUTO, Pictures, a_folder, a_name, a_place
from .sets import read_pictures


@dataclass(frozen=True)
class PretrainFile:
    """What is asked.

    Attributes:
        name: of the run, and of the file that it saves.
        output: results go there, as under ComfyUI's own output folder: the run to
            nsync/runs/<name>, the encoders to supcon_encoders.
        if_run_exists: `continue` a run of this name, or `start anew` under a numbered name.
        clip: a folder with a CLIP (config.json, safetensors, tokenizer), on which projections are
            trained; nothing given, small encoders are trained from nothing.
        image_size: side in pixels of the pictures that the small encoders look at.
        width: numbers per feature.
        device: where it computes: `auto`, `cpu`, `cuda`.
    """

    name: str = "supcon_encoders"
    output: Path = Path("output")
    if_run_exists: str = CONTINUE
    clip: Path | None = None
    image_size: int = 64
    width: int = 128
    device: str = AUTO
    style_set: Pictures = field(default_factory=Pictures)
    settings: PretrainSettings = field(default_factory=PretrainSettings)

    def judgements(self) -> list[Judgement]:
        """The rules of single keys."""
        return [
            a_name(self, "name"),
            a_place(self, "output"),
            one_of(self, "if_run_exists", (CONTINUE, ANEW)),
            a_folder(self, "clip"),
        ]


FILE = "YAML file with the keys below; flags stand over it"
DEFAULT = PretrainFile()
SHARES = ()
LEARNS = True


def run(asked: PretrainFile, dry_run: bool = False) -> Outcome:
    """Pretrain, or say what it would take."""
    folder = run_place(asked.output, check_name(asked.name))
    folder = to_train_in(folder, asked.if_run_exists)
    style_set, report = read_pictures(asked.style_set)
    labels = read_labels(style_set)
    encoders = _first(asked, [item.caption for item in style_set.items])
    if dry_run:  # `pretrain` itself does so, too
        asked.settings.check()
        check_before_pictures(folder, asked.settings, base_config(asked.settings, encoders))
        size = plan.megabytes(plan.held(encoders))
        device = device_of(asked.device, "device")
        told = f"{len(labels.names)} labels; encoders of {size} on {device}."
        return Outcome("\n".join([report, *labels.notes, told, "Nothing was begun."]))

    def export(learned: ModulesLearned, made: int) -> dict[str, Path]:
        title = export_title(folder.name, made, asked.settings.steps)
        path = numbered(asked.output / "supcon_encoders" / f"{title}.safetensors")
        training = {**(RunFolder(folder).config() or {}), "steps": made}
        found = learned[ENCODERS]
        save_encoders(path, encoders, title=title, training=training, learned=found)
        return {ENCODERS: path}

    title, count = folder.name, asked.settings.steps
    with items("Reading") as on_item, steps(title, count, "loss") as on_step:
        result = pretrain(
            asked.settings, encoders, style_set, folder, export, on_step=on_step, on_item=on_item
        )
    return ended(result, count)


def _first(asked: PretrainFile, captions: list[str]) -> Encoders:
    if asked.clip:
        encoders = ClipEncoders.from_folder(asked.clip, asked.width)
    else:
        seed = asked.settings.seed
        encoders = SmallEncoders.fresh(captions, seed, asked.image_size, asked.width)
    return encoders.to(device_of(asked.device, "device"))
