"""Paint prompts with a trained text-to-image GAN, in one pass for each picture."""

from dataclasses import dataclass
from pathlib import Path

from ..files import numbered, write_atomic
from ..pictures.images import png, to_picture
from ..runs.judgements import Judgement, at_least
from ..supcon.gan.model_file import load_model
from ..supcon.gan.sampler import generate
from .main import Outcome
from .models import device_of
from .progress import items
from .sections import AUTO, a_file, a_place


@dataclass(frozen=True)
class SampleFile:
    """What is asked.

    Attributes:
        gan: the file of the GAN.
        prompts: what to paint, in words of the captions that it was trained with.
        folder: takes the pictures, 0000.png and so on, prompt by prompt.
        seed: of the first picture of each prompt; the next one has the next seed.
        per_prompt: pictures of each prompt.
        truncation: keeps the noise within plus and minus so much: the lower, the more typical the
            pictures; 0 does not.
        batch: pictures painted at once.
        device: where it computes: `auto`, `cpu`, `cuda`.
    """

    gan: Path | None = None
    prompts: tuple[str, ...] = ()
    folder: Path = Path("output/painted")
    seed: int = 0
    per_prompt: int = 1
    truncation: float = 0.0
    batch: int = 16
    device: str = AUTO

    def judgements(self) -> list[Judgement]:
        """The rules of single keys."""
        return [
            a_file(self, "gan", needed=True),
            a_place(self, "folder"),
            ("prompts", "at least one prompt", "none", bool(self.prompts)),
            *(at_least(self, name, 1) for name in ("per_prompt", "batch")),
            *(at_least(self, name, 0) for name in ("seed", "truncation")),
        ]


FILE = "YAML file with the keys below; flags stand over it"
DEFAULT = SampleFile()
SHARES = ()
LEARNS = False


def run(asked: SampleFile) -> Outcome:
    """Paint them; a folder that is there is kept, and the new one numbered."""
    model, device = load_model(asked.gan), device_of(asked.device, "device")
    prompts = [prompt for prompt in asked.prompts for _ in range(asked.per_prompt)]
    seeds = [asked.seed + k for _ in asked.prompts for k in range(asked.per_prompt)]
    with items("Painting") as on_item:
        pictures = generate(
            model.generator.to(device),
            model.encoders.to(device),
            prompts,
            seeds,
            truncation=asked.truncation,
            batch=asked.batch,
            on_item=on_item,
        )
    folder = numbered(asked.folder)
    for number, picture in enumerate(pictures):
        write_atomic(folder / f"{number:04}.png", png(to_picture(picture)))
    return Outcome(f"{len(pictures)} pictures in {folder}.")
