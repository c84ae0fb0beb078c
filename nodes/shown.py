"""What stays on a node after its run: texts, and pictures that lie in the output folder."""

from collections.abc import Sequence
from pathlib import Path

import folder_paths

from ..nsync.runs.parts import TrainResult
from .progress import show_text

_NAMED = 10


def shown(
    texts: Sequence[str], pictures: Sequence[Path] = (), *, node_id: str | None
) -> dict[str, list]:
    """For `NodeOutput(ui=...)`.

    The page draws the pictures of it, and hands its texts to whoever asks by the API; itself it
    draws them on Preview as Text alone. So they are shown as a text of progress as well, which
    stays on the node.
    """
    show_text("\n".join(texts), node_id)
    output = Path(folder_paths.get_output_directory())
    entries = [
        {
            "filename": path.name,
            "subfolder": path.parent.relative_to(output).as_posix(),
            "type": "output",
        }
        for path in pictures
    ]
    return {"text": list(texts)} | ({"images": entries} if entries else {})


def listed(names: Sequence[str]) -> str:
    """Names in a sentence; of many the first ones, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def standing(result: TrainResult, steps: int) -> list[str]:
    """Where a run stands, if it is not over."""
    if result.step == steps:
        return []
    return [f"Paused after {result.step} of {steps} steps: run again"]
