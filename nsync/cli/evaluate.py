"""Score pictures against real pictures of the style: was it caught, and is the difference real?

The pictures are those of `nsync compare`, or of two folders. The report is a folder with one page.
"""

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError, told_as
from ..evaluation.arms import Arm
from ..evaluation.encoders import NetworkEncoder
from ..evaluation.evaluate import evaluate
from ..evaluation.loading import NAMES, load_encoder
from ..evaluation.pictures import as_pictures
from ..evaluation.report import write_report
from ..evaluation.request import Request, check
from ..evaluation.result import PAPER, PARITIES, STANDARD
from ..files import numbered
from ..names import check_name
from ..processes import ONE, Processes, check_device, joined
from ..runs.judgements import Judgement, at_least, one_of
from ..sets.folder import pictures_in
from .compare import BASE, read_arms
from .main import Outcome
from .models import device_of
from .progress import items
from .sections import AUTO, a_file, a_folder, a_name, a_place

EVALUATIONS = "evaluations"
_RULERS = ("ruler", "ruler-content")


@dataclass(frozen=True)
class Encoders:
    """What pictures are judged by: weight files; at least one that knows styles.

    Attributes:
        ruler: the tiny base's own, which needs no file.
        csd: style (CSD).
        clip_l_14: prompts, and a control beside CSD.
        clip_l_14_336: CMMD.
        dinov2: content, diversity, drift.
        inception: FID and KID.
        inception_imagenet: FID and KID as the NSYNC paper has them.
        sscd: copies.
        text_file: for CLIP, its text tower where the file has none.
        tokenizer: for CLIP, a folder with vocab.json and merges.txt; without it no prompts are
            judged.
        device: where they compute: `auto`, `cpu`, `cuda`.
    """

    ruler: bool = False
    csd: Path | None = None
    clip_l_14: Path | None = None
    clip_l_14_336: Path | None = None
    dinov2: Path | None = None
    inception: Path | None = None
    inception_imagenet: Path | None = None
    sscd: Path | None = None
    text_file: Path | None = None
    tokenizer: Path | None = None
    device: str = AUTO

    @property
    def files(self) -> dict[str, Path]:
        """The weight files by the encoder's name."""
        given = {name: getattr(self, name.replace("-", "_"), None) for name in NAMES}
        return {name: file for name, file in given.items() if isinstance(file, Path)}

    def judgements(self) -> list[Judgement]:
        """The rules of single keys."""
        some = self.ruler or bool(self.files)
        weights = [name.replace("-", "_") for name in NAMES if name not in _RULERS]
        return [
            ("ruler", "at least one encoder", "none", some),
            *(a_file(self, name) for name in (*weights, "text_file")),
            a_folder(self, "tokenizer"),
        ]

    def load(self, as_paper: bool) -> list[NetworkEncoder]:
        """All of them, where they compute.

        Raises:
            InputError: a file is missing, damaged or of another network.
        """
        names = [(name, None) for name in _RULERS if self.ruler]
        loaded = []
        for name, file in (*names, *self.files.items()):
            words = {}
            if name.startswith("clip") and self.tokenizer:
                words = {"tokenizer": self.tokenizer, "text_file": self.text_file}
            with told_as(f"encoders.{name.replace('-', '_')}"):
                loaded.append(load_encoder(name, file, as_paper=as_paper, **words))
        device = device_of(self.device, "encoders.device")
        return [encoder.to(device) for encoder in loaded]


@dataclass(frozen=True)
class EvaluateFile:
    """What is asked.

    Attributes:
        name: of the report.
        output: the report goes to <output>/nsync/evaluations/<name>; one that is there is kept, and
            the new one numbered.
        references: a folder of real pictures of the style, 5 or more; best are some that training
            has not seen.
        comparison: a folder that `nsync compare` has made.
        candidates: a folder of pictures, in place of a comparison.
        baseline: a folder of the untuned model's pictures, same prompts and seeds, beside
            `candidates`.
        distractors: a folder of pictures of other styles; without it the baseline's are taken.
        candidate: the arm of the comparison that the verdict is about; empty: the last one.
        parity: scores that hold at few pictures, or those of the NSYNC paper's tables.
        seed: of the resamples behind intervals and p-values.
    """

    name: str = "evaluation"
    output: Path = Path("output")
    references: Path | None = None
    comparison: Path | None = None
    candidates: Path | None = None
    baseline: Path | None = None
    distractors: Path | None = None
    candidate: str = ""
    parity: str = STANDARD
    seed: int = 0
    encoders: Encoders = field(default_factory=Encoders)

    def judgements(self) -> list[Judgement]:
        """The rules of single keys."""
        one = bool(self.comparison) != bool(self.candidates)
        got = "both" if self.comparison and self.candidates else "neither"
        return [
            a_name(self, "name"),
            a_place(self, "output"),
            a_folder(self, "references", needed=True),
            ("comparison", "`comparison` or `candidates`, one of the two", got, one),
            (
                "baseline",
                "none beside a comparison, which has its own",
                str(self.baseline),
                not (self.comparison and self.baseline),
            ),
            *(a_folder(self, n) for n in ("comparison", "candidates", "baseline", "distractors")),
            one_of(self, "parity", PARITIES),
            at_least(self, "seed", 0),
        ]


FILE = "YAML file with the keys below; flags stand over it"
DEFAULT = EvaluateFile()
SHARES = ()
LEARNS = True
SHARED = True


def run(asked: EvaluateFile, dry_run: bool = False) -> Outcome:
    """Score, and write the report; looked at by all processes that were started together."""
    with joined() as processes:
        return _run(asked, dry_run, processes)


def _run(asked: EvaluateFile, dry_run: bool, processes: Processes) -> Outcome:
    arms = read_arms(asked.comparison) if asked.comparison else _given(asked)
    request = Request(
        references=pictures_of(asked.references, "references"),
        arms=tuple(arms),
        candidate=asked.candidate or arms[-1].name,
        baseline=next((arm.name for arm in arms if arm.name == BASE), ""),
        distractors=pictures_of(asked.distractors, "distractors") if asked.distractors else (),
        parity=asked.parity,
        seed=asked.seed,
    )
    check(request)
    key = "encoders.device"
    check_device(device_of(asked.encoders.device, key), key)
    encoders = asked.encoders.load(asked.parity == PAPER)
    folder = numbered(asked.output / "nsync" / EVALUATIONS / check_name(asked.name))
    if dry_run:
        counts = ", ".join(f"{arm.name} {len(arm.pictures)}" for arm in arms)
        told = f"{len(request.references)} references; arms: {counts}; report to {folder}."
        return Outcome(f"{told}\nNothing was begun.")
    return Outcome(scored(request, encoders, asked.output, folder, processes))


def scored(
    request: Request,
    encoders: list[NetworkEncoder],
    output: Path,
    folder: Path,
    processes: Processes = ONE,
) -> str:
    """Evaluate, and by the lead write the report; the verdict and where the report is."""
    with items("Looking at pictures") as on_item:
        found = evaluate(request, encoders, output / "nsync" / "vectors", on_item, processes)
    if not processes.is_lead:
        return ""
    write_report(folder, found, request.references, {a.name: a.pictures for a in request.arms})
    return f"{found.verdict}\nReport: {folder / 'report.html'}"


def pictures_of(folder: Path, key: str) -> tuple:
    """The pictures of a folder, uint8 `[3, h, w]` each.

    Raises:
        InputError: there is none, or one cannot be read.
    """
    files = pictures_in(folder)
    if not files:
        raise InputError(key, "a folder of pictures", f"{folder}, without any")
    return tuple(as_pictures(files, key))


def _given(asked: EvaluateFile) -> list[Arm]:
    arms = [Arm(BASE, pictures_of(asked.baseline, "baseline"))] if asked.baseline else []
    return [*arms, Arm("candidate", pictures_of(asked.candidates, "candidates"))]
