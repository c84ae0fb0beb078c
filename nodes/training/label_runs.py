"""What a trainer node's runs have still to do: one for all pictures, or one for every label."""

import glob

from ...nsync.runs.folder import RunFolder
from ...nsync.runs.several import ONE_STYLE
from ..folders import run_folder


def pending_runs(name: str, labels: str) -> str:
    """A text that is another one whenever a stopped or paused run of the node has gone on."""
    if labels == ONE_STYLE:
        return RunFolder(run_folder(name)).pending()
    # Which labels there are is not known before the graph runs.
    own = run_folder(name)
    folders = sorted(own.parent.glob(f"{glob.escape(own.name)}_*"))
    return " ".join(f"{folder.name}:{RunFolder(folder).pending()}" for folder in folders)
