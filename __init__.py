"""Table of contents for ComfyUI: the folder of the help pages and the door to the nodes.

The host is imported inside `comfy_entrypoint` only, so that a test runner or a script that meets
this file as a package imports nothing by accident.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI calls to learn of the nodes."""
    from .nodes import NsyncExtension

    return NsyncExtension()
