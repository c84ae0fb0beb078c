"""The SupCon GAN Trainer node: a generator learns to paint the captions of a labelled set."""

import torch
from comfy_api.latest import io

from ...nsync.style_set import StyleSet
from ...nsync.supcon.encoders import Encoders
from ...nsync.supcon.gan.choices import family_of, with_preset
from ...nsync.supcon.gan.settings import GanSettings
from ..progress import TrainingProgress
from ..prompts import prompt_lines
from ..runs import check_pausing, pending_runs, run_problem, told_how_to_go_on
from ..shown import shown, standing
from ..sockets import LossMapSocket, TextToImageGanSocket
from .gan_inputs import gan_inputs
from .gan_model import loaded_model, model_report
from .gan_run import MODEL, GanRun
from .trained_files import GANS_FOLDER, listed_as


class SupConGANTrainer(io.ComfyNode):
    """`NSYNC_SupConGANTrainer`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_SupConGANTrainer",
            display_name="SupCon GAN Trainer",
            category="NSYNC",
            description="Trains a text-to-image GAN on a labelled set: prompts become pictures in "
            "one pass, in milliseconds. Labels guide it: pictures and texts of one label are "
            "pulled together. A run that was stopped goes on when the graph is run again.",
            search_aliases=["gan", "ssa-gan", "galip", "attngan", "dm-gan", "supcon"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=gan_inputs(),
            outputs=[
                TextToImageGanSocket.Output(display_name="model", tooltip="For T2I GAN Sampler."),
                LossMapSocket.Output(
                    display_name="loss_map",
                    tooltip="For Plot Loss Graph: the generator's loss, which tells how it stands "
                    "against the discriminator, not how good the pictures are.",
                ),
                io.String.Output(display_name="report", tooltip="What was trained, in words."),
                io.String.Output(
                    display_name="file", tooltip="The saved file, as Load T2I GAN lists it."
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
        encoders: Encoders,
        family: str,
        image_size: int,
        width: int,
        name: str,
        preset: str,
        preview_prompts: str,
        if_run_exists: str,
        **settings: str | int | float | bool,
    ) -> io.NodeOutput:
        with torch.inference_mode(False), torch.enable_grad():
            kind = family_of(family, image_size, width, encoders)
            wanted = with_preset(GanSettings(**settings), kind, preset)
            check_pausing(if_run_exists, wanted.pause_every)
            run = GanRun.prepare(wanted, kind, encoders, style_set, name, if_run_exists)
            progress = TrainingProgress(wanted.steps, cls.hidden.unique_id, "loss_g")
            previews = run.previews(prompt_lines(preview_prompts), progress)
            with told_how_to_go_on(run.folder, if_run_exists, cls.hidden.unique_id):
                result = run.train(progress, previews)
            file = result.files[MODEL]
            model = loaded_model(file)
        listed, notes = listed_as(GANS_FOLDER, file), run.pairs.labels.notes
        report = "\n".join([model_report(model, file.stem), *notes])
        told = [f"Saved {listed}", *standing(result, wanted.steps), report]
        return io.NodeOutput(
            model,
            {"loss": result.losses},
            report,
            listed,
            ui=shown(told, previews.latest, node_id=cls.hidden.unique_id),
        )
