"""The Style Set node: pictures and captions from a folder or from sockets, checked and reported."""

import torch
from comfy_api.latest import io

from ...nsync.errors import InputError
from ...nsync.sets.folder import Report, read_folder, read_lists
from ...nsync.style_set import DEFAULT_TEMPLATE
from ...nsync.style_set import StyleSet as StyleValue
from ..folders import folder_fingerprint, folder_options, folder_problem, resolve_folder
from ..progress import on_picture
from ..shown import shown
from ..sockets import StyleSetSocket

FROM_SOCKETS = "(from sockets)"


class StyleSet(io.ComfyNode):
    """`NSYNC_StyleSet`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_StyleSet",
            display_name="Style Set",
            category="NSYNC",
            description="Pictures of one style with captions that tell their content, the word "
            "that will stand for the style, and a report on every file with a problem.",
            search_aliases=["style dataset", "training images", "load captions", "trigger word"],
            is_input_list=True,
            is_output_node=True,  # the report alone is worth a run, before any training
            inputs=_inputs(),
            hidden=[io.Hidden.unique_id],
            outputs=[
                StyleSetSocket.Output("style_set", display_name="style_set"),
                io.String.Output("report", display_name="report"),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder: list[str | None]) -> bool | str:
        return True if folder[0] == FROM_SOCKETS else folder_problem(folder[0])

    @classmethod
    def fingerprint_inputs(cls, folder: list[str | None], **_: object) -> str:
        if folder[0] in (None, FROM_SOCKETS):
            return ""
        return folder_fingerprint(folder[0])

    @classmethod
    def execute(
        cls,
        folder: list[str],
        token: list[str],
        template: list[str],
        resolution: list[int],
        problem_files: list[str],
        images: list[torch.Tensor] | None = None,
        captions: list[str] | None = None,
        labels: list[str] | None = None,
    ) -> io.NodeOutput:
        empty = StyleValue((), token[0].strip(), template[0], resolution[0])
        skip = problem_files[0] == "skip"
        if folder[0] == FROM_SOCKETS:
            style_set, report = _from_sockets(images, captions or [], labels or [], empty, skip)
        else:
            _check_alone(folder[0], images)
            place = resolve_folder(folder[0])
            words = {"captions": captions or [], "labels": labels or []}
            style_set, report = read_folder(
                place, empty, skip=skip, **words, on_picture=on_picture()
            )
        told = report.text()
        return io.NodeOutput(style_set, told, ui=shown([told], node_id=cls.hidden.unique_id))


def _from_sockets(
    images: list[torch.Tensor] | None,
    captions: list[str],
    labels: list[str],
    empty: StyleValue,
    skip: bool,
) -> tuple[StyleValue, Report]:
    pictures = [picture for batch in images or [] for picture in batch]
    if not pictures:
        rule = f"pictures on this socket while `folder` is {FROM_SOCKETS!r}"
        raise InputError("images", rule, "none", "Connect pictures, or choose a folder.")
    return read_lists(pictures, captions, labels, empty, skip=skip, on_picture=on_picture())


def _check_alone(folder: str, images: list[torch.Tensor] | None) -> None:
    if images is not None:
        raise InputError(
            "folder",
            f"{FROM_SOCKETS!r} while `images` is connected",
            repr(folder),
            "The pictures come from a folder or from the socket, not from both.",
        )


def _inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "folder",
            options=[FROM_SOCKETS, *folder_options()],
            tooltip="Folder of pictures with a caption file x.txt beside each x.png, under the "
            "host's input or datasets folder. Names of folders inside it become labels.",
        ),
        io.Image.Input(
            "images",
            optional=True,
            tooltip="Pictures of the style, of any sizes, instead of a folder.",
        ),
        io.String.Input(
            "captions",
            optional=True,
            force_input=True,
            tooltip="One caption for each picture, telling what it shows, not how. With a folder "
            "they stand in for its caption files, in the order of the file names.",
        ),
        io.String.Input(
            "labels",
            optional=True,
            force_input=True,
            tooltip="One label for each picture, if any; pictures with the same label belong "
            "together. With a folder they stand in for the names of its inner folders.",
        ),
        io.String.Input(
            "token",
            default="sks",
            tooltip="The word that will stand for the style in prompts (trigger word). Choose one "
            "that means nothing to the base model.",
        ),
        io.String.Input(
            "template",
            default=DEFAULT_TEMPLATE,
            tooltip="How a caption and the token make a prompt; {caption} and {token} must both "
            "be in it.",
        ),
        io.Int.Input(
            "resolution",
            default=512,
            min=64,
            max=2048,
            step=8,
            tooltip="Pictures are scaled to about the area of a square with this side, in pixels. "
            "Take the base model's own: 512 for SD1.5, 1024 for SDXL.",
        ),
        io.Combo.Input(
            "problem_files",
            options=["stop", "skip"],
            default="stop",
            tooltip="What to do when pictures are unreadable, tiny, duplicates or lack a good "
            "caption: stop and list them all, or go on without them and list them.",
        ),
    ]
