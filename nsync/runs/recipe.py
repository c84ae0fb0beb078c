"""What a run was asked for, as the YAML file that the command line takes: `run.yaml`.

Every door writes it into the run's folder, with the listing of the set beside it. `nsync train
run.yaml` goes on with the run, and a copy of it begins another one.
"""

from collections.abc import Mapping
from pathlib import Path

import yaml

from ..files import numbered, write_atomic
from ..sets.listing import write_set
from ..settings import TrainSettings
from ..style_set import StyleSet

RUN_FILE, SET_FILE = "run.yaml", "set.json"

CONTINUE, ANEW = "continue", "start anew"
"""What to do where the folder of a run is there already."""

_HEAD = """\
# What this run was asked for. To go on with it without the graph:
#     nsync train {file} --model.path MODEL
# where MODEL is the base that it was begun with. `nsync train --help` tells every key.
"""


def run_place(output: Path, name: str) -> Path:
    """The folder of the run of this name, `<output>/nsync/runs/<name>`."""
    return output / "nsync" / "runs" / name


def to_train_in(place: Path, if_run_exists: str) -> Path:
    """The run's folder: that of its name, or a numbered one beside it where it is begun anew."""
    return numbered(place) if if_run_exists == ANEW else place


def write_recipe(
    folder: Path,
    settings: TrainSettings,
    style_set: StyleSet,
    more: Mapping[str, object] | None = None,
) -> None:
    """Write a run's file and its set's listing.

    Args:
        folder: of the run, as `run_place` has it.
        more: other keys of the file, as plain values.

    Raises:
        InputError: the disk is full or the place cannot be written.
    """
    told = {
        "name": folder.name,
        "output": "../../..",  # as `run_place` has it
        **(more or {}),
        "style_set": {"listing": SET_FILE},
        "settings": settings.as_dict(),
    }
    write_set(folder / SET_FILE, style_set)
    text = yaml.safe_dump(told, sort_keys=False, allow_unicode=True)
    write_atomic(folder / RUN_FILE, _HEAD.format(file=RUN_FILE) + text)
