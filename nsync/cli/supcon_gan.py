"""Train a text-to-image GAN on a labelled set, against encoders of `nsync supcon pretrain`."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from ..files import numbered, write_atomic
from ..names import check_name, export_title
from ..pictures.images import png
from ..runs.folder import RunFolder
from ..runs.judgements import Judgement, at_least, one_of
from ..runs.recipe import ANEW, CONTINUE, run_place, to_train_in
from ..supcon.encoder_file import load_encoders
from ..supcon.encoders import Encoders, check_captions
from ..supcon.gan import FAMILIES
from ..supcon.gan.choices import AS_SET, PUBLISHED, family_of, vision_of, with_preset
from ..supcon.gan.contract import Networks
from ..supcon.gan.model_file import save_model
from ..supcon.gan.sampler import generate
from ..supcon.gan.settings import GanSettings
from ..supcon.gan.sheets import first_prompts, sheet
from ..supcon.gan.training import Preview, check_before_reading, check_fit, check_penalties, train
from ..supcon.learner import AVERAGE, ModulesLearned
from ..supcon.pairs import read_pairs
from . import plan
from .main import Outcome
from .models import device_of
from .progress import items, steps
from .runs import ended
from .sections import AUTO, Pictures, a_file, a_name, a_place
from .sets import read_pictures


@dataclass(frozen=True)
class GanFile:
    """What is asked.

    Attributes:
        name: of the run, and of the file that it saves.
        output: results go there, as under ComfyUI's own output folder: the run to
            nsync/runs/<name>, the GAN to t2i_gans.
        if_run_exists: `continue` a run of this name, or `start anew` under a numbered name.
        encoders: the file of encoders.
        family: the networks, as in the papers of these names.
        image_size: side of the pictures in pixels; a power of two, but for GALIP.
        width: channels that all others of the networks are multiples of.
        preset: `as set`, or `published`: the family's own values stand over `settings`.
        preview_prompts: what is on the preview sheets; none given, captions of the set.
        device: where it computes: `auto`, `cpu`, `cuda`.
    """

    name: str = "supcon_gan"
    output: Path = Path("output")
    if_run_exists: str = CONTINUE
    encoders: Path | None = None
    family: str = next(iter(FAMILIES))
    image_size: int = 64
    width: int = 32
    preset: str = AS_SET
    preview_prompts: tuple[str, ...] = ()
    device: str = AUTO
    style_set: Pictures = field(default_factory=Pictures)
    settings: GanSettings = field(default_factory=GanSettings)

    def judgements(self) -> list[Judgement]:
        """The rules of single keys."""
        return [
            a_name(self, "name"),
            a_place(self, "output"),
            a_file(self, "encoders", needed=True),
            one_of(self, "if_run_exists", (CONTINUE, ANEW)),
            one_of(self, "family", tuple(FAMILIES)),
            one_of(self, "preset", (AS_SET, PUBLISHED)),
            at_least(self, "image_size", 8),
            at_least(self, "width", 1),
        ]


FILE = "YAML file with the keys below; flags stand over it"
DEFAULT = GanFile()
SHARES = ()
LEARNS = True


def run(asked: GanFile, dry_run: bool = False) -> Outcome:
    """Train, or say what it would take."""
    folder = run_place(asked.output, check_name(asked.name))
    folder = to_train_in(folder, asked.if_run_exists)
    style_set, report = read_pictures(asked.style_set)
    device = device_of(asked.device, "device")
    encoders = load_encoders(asked.encoders).requires_grad_(False).to(device)
    family = family_of(asked.family, asked.image_size, asked.width, encoders)
    settings = with_preset(asked.settings, family, asked.preset)
    settings.check()
    family.check()
    check_penalties(settings, family)
    vision = vision_of(family, encoders)
    sizes = _sizes(check_before_reading(settings, family, encoders, folder, vision))
    with items("Reading") as on_item:
        pairs = read_pairs(style_set, family.image_size, on_item)
    check_fit(family, encoders, pairs)
    prompts = list(asked.preview_prompts) or first_prompts(pairs)
    check_captions(encoders, ((repr(prompt), prompt) for prompt in prompts))
    if dry_run:
        told = f"{len(pairs)} pairs, {len(pairs.labels.names)} labels. {sizes}"
        return Outcome("\n".join([report, told, "Nothing was begun."]))

    def export(learned: ModulesLearned, made: int) -> dict[str, Path]:
        title = export_title(folder.name, made, settings.steps)
        path = numbered(asked.output / "t2i_gans" / f"{title}.safetensors")
        told = {"title": title, "training": {**(RunFolder(folder).config() or {}), "steps": made}}
        save_model(path, learned[AVERAGE], family, encoders, vision=vision, **told)
        return {"model": path}

    preview = _previews(encoders, prompts, settings.seed, folder / "samples")
    with items("Encoding") as on_item, steps(folder.name, settings.steps, "loss_g") as on_step:
        watched = {"on_step": on_step, "on_item": on_item, "preview": preview}
        result = train(settings, family, encoders, pairs, folder, export, vision=vision, **watched)
    return ended(result, settings.steps)


def _previews(encoders: Encoders, prompts: list[str], seed: int, folder: Path) -> Preview:
    """Draws the same prompts with the same seeds every time, on a sheet."""
    seeds = range(seed, seed + len(prompts))

    def preview(done: int, painter: nn.Module) -> None:
        picture = sheet(generate(painter, encoders, prompts, seeds))
        write_atomic(folder / f"step_{done:08}.png", png(picture))

    return preview


def _sizes(networks: Networks) -> str:
    """What the networks take of memory, in words."""
    sizes = " and ".join(plan.megabytes(plan.held(network)) for network in networks)
    return f"Generator and discriminators: {sizes}; with gradients and Adam four times that."
