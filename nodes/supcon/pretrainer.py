"""The SupCon Pretrainer node: a labelled set teaches encoders what belongs together."""

from dataclasses import dataclass
from pathlib import Path

import torch
from comfy_api.latest import io

from ...nsync.checkpoint import check_room
from ...nsync.files import numbered
from ...nsync.names import export_title
from ...nsync.runs.folder import RunFolder
from ...nsync.runs.parts import TrainResult
from ...nsync.runs.recipe import to_train_in
from ...nsync.style_set import StyleSet
from ...nsync.supcon.collapse import CollapseWatch
from ...nsync.supcon.encoder_file import save_encoders
from ...nsync.supcon.encoders import Encoders
from ...nsync.supcon.labels import Labels, read_labels
from ...nsync.supcon.learner import ModulesLearned
from ...nsync.supcon.pretrain_settings import PretrainSettings
from ...nsync.supcon.pretraining import (
    ENCODERS,
    IMAGE_TO_TEXT,
    TEXT_TO_IMAGE,
    pretrain,
)
from ..folders import run_folder
from ..host.devices import EVERYTHING, at_work, weight_of
from ..progress import TrainingProgress, on_picture
from ..runs import check_pausing, pending_runs, run_problem, told_how_to_go_on
from ..shown import shown, standing
from ..sockets import LossMapSocket, SupConEncodersSocket
from .encoders import first_encoders, frozen_encoders
from .inputs import pretrainer_inputs
from .trained_files import ENCODERS_FOLDER, listed_as, trained_folder


class SupConPretrainer(io.ComfyNode):
    """`NSYNC_SupConPretrainer`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_SupConPretrainer",
            display_name="SupCon Pretrainer",
            category="NSYNC",
            description="Teaches a pair of encoders which picture and text belong together, and "
            "which pictures and texts share a label (supervised contrastive learning). What SupCon "
            "GAN Trainer needs first. A run that was stopped goes on when the graph is run again.",
            search_aliases=["supcon", "contrastive", "damsm", "clip fine-tune", "text encoder"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=pretrainer_inputs(),
            outputs=[
                SupConEncodersSocket.Output(
                    display_name="encoders", tooltip="For SupCon GAN Trainer."
                ),
                LossMapSocket.Output(display_name="loss_map", tooltip="For Plot Loss Graph."),
                io.String.Output(
                    display_name="report",
                    tooltip="How well texts find their pictures (R-precision), in words.",
                ),
                io.String.Output(
                    display_name="file", tooltip="The saved file, as Load SupCon Encoders lists it."
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        name: str | None = None,
        if_run_exists: str | None = None,
        pause_every: int | None = None,
    ) -> bool | str:
        return run_problem(name, if_run_exists, pause_every)

    @classmethod
    def fingerprint_inputs(cls, name: str | None, **_: object) -> str:
        """A run that was paused or stopped goes on when the graph is run again."""
        return pending_runs(name)

    @classmethod
    def execute(
        cls,
        style_set: StyleSet,
        encoders: str,
        name: str,
        image_size: int,
        width: int,
        if_run_exists: str,
        **settings: str | int | float,
    ) -> io.NodeOutput:
        with torch.inference_mode(False), torch.enable_grad():
            wanted = PretrainSettings(**settings)
            wanted.check()
            check_pausing(if_run_exists, wanted.pause_every)
            folder, labels = to_train_in(run_folder(name), if_run_exists), read_labels(style_set)
            captions = [item.caption for item in style_set.items]
            first = first_encoders(encoders, captions, wanted.seed, image_size, width)
            check_room(trained_folder(ENCODERS_FOLDER), weight_of(first) // 4, 1)
            run = _Pretraining(wanted, first, style_set, folder)
            node = cls.hidden.unique_id
            with told_how_to_go_on(run.folder, if_run_exists, node):
                result = run.train(TrainingProgress(wanted.steps, node, "loss"))
        file = result.files[ENCODERS]
        report = run.report(labels)
        told = [f"Saved {listed_as(ENCODERS_FOLDER, file)}", *standing(result, wanted.steps)]
        return io.NodeOutput(
            frozen_encoders(file),
            {"loss": result.losses},
            report,
            listed_as(ENCODERS_FOLDER, file),
            ui=shown([*told, report], node_id=cls.hidden.unique_id),
        )


@dataclass(frozen=True)
class _Pretraining:
    """A run: what it is made of, and its folder."""

    settings: PretrainSettings
    encoders: Encoders
    style_set: StyleSet
    folder: Path

    def train(self, progress: TrainingProgress) -> TrainResult:
        """Train where the host computes; what was learned is saved at the end, or at a stop."""
        with at_work(EVERYTHING, self.encoders):
            return pretrain(
                self.settings,
                self.encoders,
                self.style_set,
                self.folder,
                self._export,
                on_step=progress.on_step,
                on_item=on_picture(),
            )

    def report(self, labels: Labels) -> str:
        """What the user may want to know of it."""
        records = RunFolder(self.folder).records()
        watch = CollapseWatch(labelled=self.settings.uses_labels)
        warnings = filter(None, map(watch.see, records))
        return "\n".join([self._precision(records), *warnings, *labels.notes])

    def _precision(self, records: list[dict]) -> str:
        measured = [one for one in records if TEXT_TO_IMAGE in one]
        if not measured:
            return "R-precision was not measured: `validation` holds no pairs out of training."
        last, count = measured[-1], self.settings.validation
        return (
            f"R-precision of {count} pairs that training never saw, after {last['step']} steps: "
            f"{last[TEXT_TO_IMAGE]:.0%} of texts find their own picture, "
            f"{last[IMAGE_TO_TEXT]:.0%} of pictures their own text."
        )

    def _export(self, learned: ModulesLearned, steps: int) -> dict[str, Path]:
        title = export_title(self.folder.name, steps, self.settings.steps)
        path = numbered(trained_folder(ENCODERS_FOLDER) / f"{title}.safetensors")
        config = RunFolder(self.folder).config() or {}
        save_encoders(
            path,
            self.encoders,
            title=title,
            training={**config, "steps": steps},
            learned=learned[ENCODERS],
        )
        return {ENCODERS: path}
