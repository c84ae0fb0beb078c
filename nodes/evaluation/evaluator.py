"""The Style Evaluator node: was the style caught, by which arm, and is the difference real?"""

import json
from collections.abc import Sequence
from pathlib import Path

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from ...nsync.errors import InputError
from ...nsync.evaluation.arms import Arm
from ...nsync.evaluation.chart import ranked
from ...nsync.evaluation.evaluate import evaluate
from ...nsync.evaluation.pictures import as_pictures
from ...nsync.evaluation.report import Report, write_report
from ...nsync.evaluation.request import Request
from ...nsync.evaluation.result import PARITIES
from ...nsync.files import numbered
from ...nsync.names import check_name
from ...nsync.style_set import StyleSet
from ..progress import on_picture
from ..shown import shown
from ..sockets import ArmsSocket, EncodersSocket, StyleSetSocket
from .comparison import BASE
from .encoder import HostEncoder

BASELINE = "baseline"
Images = list[Tensor]


class StyleEvaluator(io.ComfyNode):
    """`NSYNC_StyleEvaluator`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_StyleEvaluator",
            display_name="Style Evaluator",
            category="NSYNC",
            description="Scores pictures against the references of a style, compares arms prompt "
            "by prompt with intervals and p-values, looks for copies, ranks the pictures and "
            "writes a report. Works from 5 pictures on, and says when it cannot.",
            search_aliases=["style score", "csd score", "fid", "kid", "cmmd", "compare loras"],
            is_input_list=True,
            is_output_node=True,
            inputs=_inputs(),
            hidden=[io.Hidden.unique_id],
            outputs=[
                io.String.Output(display_name="scores", tooltip="Everything, as JSON."),
                io.Image.Output(display_name="chart", tooltip="The chart and the table."),
                io.Image.Output(
                    display_name="ranked",
                    is_output_list=True,
                    tooltip="The candidate's pictures, nearest to the style first.",
                ),
                io.Int.Output(
                    display_name="indices",
                    is_output_list=True,
                    tooltip="Where each ranked picture was before, 0 the first.",
                ),
                io.String.Output(display_name="verdict", tooltip="In words."),
                io.String.Output(display_name="report", tooltip="The report's folder."),
            ],
        )

    @classmethod
    def execute(
        cls,
        encoders: list[tuple[HostEncoder, ...]],
        candidate: list[str],
        parity: list[str],
        seed: list[int],
        name: list[str],
        style_set: list[StyleSet] | None = None,
        references: Images | None = None,
        arms: list[tuple[Arm, ...]] | None = None,
        candidates: Images | None = None,
        baseline: Images | None = None,
        captions: list[str] | None = None,
        distractors: Images | None = None,
    ) -> io.NodeOutput:
        folder = numbered(_folder(name[0]))
        given = [*_given(candidate[0], candidates, baseline, captions or [])]
        every = (*_together(arms or []), *given)
        request = Request(
            references=_references(style_set, references),
            arms=every,
            candidate=_candidate(candidate[0].strip(), every),
            baseline=next((arm.name for arm in every if arm.name in (BASE, BASELINE)), ""),
            distractors=tuple(as_pictures(distractors or [], "distractors")),
            parity=parity[0],
            seed=seed[0],
        )
        found = evaluate(request, encoders[0], vector_store(), on_picture())
        pictures = {arm.name: arm.pictures for arm in every}
        report = write_report(folder, found, request.references, pictures)
        order = ranked(found.arm(request.candidate))
        chosen = pictures[request.candidate]
        return io.NodeOutput(
            json.dumps(found.as_dict()),
            _image(report.chart),
            [chosen[i].movedim(0, -1)[None].float() / 255 for i in order],
            order,
            found.verdict,
            str(folder),
            ui=_shown(report, found.verdict, cls.hidden.unique_id),
        )


def _together(comparisons: Sequence[tuple[Arm, ...]]) -> list[Arm]:
    """The arms of all comparisons; a base that several of them drew alike stands once."""
    arms: list[Arm] = []
    for arm in (arm for one in comparisons for arm in one):
        drawn = (other for other in arms if arm.name == other.name == BASE)
        if not any(_same(arm, other) for other in drawn):
            arms.append(arm)
    return arms


def _same(arm: Arm, other: Arm) -> bool:
    words = (arm.prompts, arm.captions) == (other.prompts, other.captions)
    sets = ((arm.pictures, other.pictures), (arm.plain, other.plain))
    return words and all(len(a) == len(b) and all(map(torch.equal, a, b)) for a, b in sets)


def _references(style_set: list[StyleSet] | None, images: Images | None) -> tuple[Tensor, ...]:
    """The pictures of the style, from one of the two sockets."""
    if (style_set is None) == (images is None):
        got = "neither" if images is None else "both"
        raise InputError("references", "`style_set` or `references`, one of the two", got)
    if images is not None:
        return tuple(as_pictures(images, "references"))
    return set_pictures(style_set[0])


def set_pictures(style_set: StyleSet) -> tuple[Tensor, ...]:
    """The set's positives as the encoders take them."""
    sources = [item.path or item.pixels for item in style_set.items]
    return tuple(as_pictures(sources, "style_set"))


def _given(
    name: str, candidates: Images | None, baseline: Images | None, captions: list[str]
) -> list[Arm]:
    """The arms that came as plain pictures."""
    arms = []
    if baseline:
        pictures = tuple(as_pictures(baseline, "baseline"))
        arms.append(Arm(BASELINE, pictures, captions=tuple(captions)))
    if candidates:
        pictures = tuple(as_pictures(candidates, "candidates"))
        arms.append(Arm(name.strip() or "candidate", pictures, captions=tuple(captions)))
    return arms


def _candidate(name: str, arms: tuple[Arm, ...]) -> str:
    """The arm that the verdict is about: the one that is named, else the last."""
    if not arms:
        expected = "`arms` from Style Comparison, or `candidates`"
        raise InputError("candidates", expected, "neither", "Connect one of the two.")
    return name or arms[-1].name


def _folder(name: str) -> Path:
    root = Path(folder_paths.get_output_directory()) / "nsync" / "evaluations"
    return root / check_name(name)


def vector_store() -> Path:
    """Where the pictures' vectors are kept, for every evaluation."""
    return Path(folder_paths.get_output_directory()) / "nsync" / "vectors"


def _image(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).float()[None] / 255


def _shown(report: Report, verdict: str, node_id: str | None) -> dict[str, list]:
    place = report.folder.relative_to(folder_paths.get_output_directory())
    told = [verdict, f"Report: {place / 'report.html'}"]
    return shown(told, [report.folder / "chart.png"], node_id=node_id)


def _inputs() -> list[io.Input]:
    return [
        EncodersSocket.Input("encoders", tooltip="From Load Style Encoder; one or several."),
        io.String.Input(
            "candidate",
            default="",
            tooltip="The arm that the verdict is about, by name; empty: the last one.",
        ),
        io.Combo.Input(
            "parity",
            options=list(PARITIES),
            advanced=True,
            tooltip="Scores that hold at few pictures; or those of the NSYNC paper's tables.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFF,
            control_after_generate=False,
            advanced=True,
            tooltip="Of the resamples behind intervals and p-values.",
        ),
        io.String.Input(
            "name", default="evaluation", tooltip="Folder under output/nsync/evaluations."
        ),
        StyleSetSocket.Input(
            "style_set", optional=True, tooltip="The style: its pictures are the references."
        ),
        io.Image.Input(
            "references",
            optional=True,
            tooltip="Or real pictures of the style, of any sizes; 5 or more. Best are some that "
            "training has not seen.",
        ),
        ArmsSocket.Input(
            "arms", optional=True, tooltip="From Style Comparison: base, LoRAs, checkpoints."
        ),
        io.Image.Input(
            "candidates", optional=True, tooltip="Pictures to judge, of any sizes, without arms."
        ),
        io.Image.Input(
            "baseline",
            optional=True,
            tooltip="Pictures of the untuned model, same prompts and seeds as `candidates`.",
        ),
        io.String.Input(
            "captions",
            optional=True,
            force_input=True,
            tooltip="What each of `candidates` shows, without a word about its style.",
        ),
        io.Image.Input(
            "distractors",
            optional=True,
            tooltip="Pictures of other styles, to see whether the encoder tells this one apart. "
            "Without them the baseline's are taken.",
        ),
    ]
