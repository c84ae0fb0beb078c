"""Runs as their nodes have them in common: what is refused, what is still to do, how to go on."""

import glob
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..nsync.errors import InputError
from ..nsync.names import check_name
from ..nsync.runs.folder import RunFolder
from ..nsync.runs.recipe import ANEW, CONTINUE
from ..nsync.runs.several import ONE_STYLE
from .folders import run_folder
from .progress import show_text

logger = logging.getLogger(__name__)


def run_problem(name: str | None, if_run_exists: str | None, pause_every: int | None) -> bool | str:
    """What `validate_inputs` answers for a run: True, or the error's text.

    Args:
        name, if_run_exists, pause_every: None where they are linked, and known only later. The host
            does not judge an input that a node judges itself.
    """
    try:
        if name is not None:
            check_name(name)
        if if_run_exists not in (None, CONTINUE, ANEW):
            raise InputError("if_run_exists", f"'{CONTINUE}' or '{ANEW}'", repr(if_run_exists))
        if pause_every is not None and pause_every < 0:
            raise InputError("pause_every", "at least 0", str(pause_every))
        check_pausing(if_run_exists or CONTINUE, pause_every or 0)
    except InputError as error:
        return str(error)
    return True


def check_pausing(if_run_exists: str, pause_every: int) -> None:
    """Refuse a run that pauses and is then begun anew, for ever.

    Raises:
        InputError: both are asked for.
    """
    if if_run_exists == ANEW and pause_every > 0:
        remedy = f"Set `if_run_exists` to '{CONTINUE}', with another `name` for a new run."
        expected = f"0 while `if_run_exists` is '{ANEW}', which never goes on after a pause"
        raise InputError("pause_every", expected, str(pause_every), remedy)


def pending_runs(name: str | None, labels: str = ONE_STYLE) -> str:
    """A text that is another one whenever a stopped or paused run of the node has gone on.

    Args:
        name: None where it is linked: then any run may be the node's.
    """
    if name is not None and labels == ONE_STYLE:
        return RunFolder(run_folder(name)).pending()
    # Which labels there are is not known before the graph runs.
    own = None if name is None else run_folder(name)
    pattern = f"{glob.escape(own.name)}_*" if own else "*"
    folders = sorted((own or run_folder("any")).parent.glob(pattern))
    return " ".join(f"{folder.name}:{RunFolder(folder).pending()}" for folder in folders)


@contextmanager
def told_how_to_go_on(folder: Path, if_run_exists: str, node_id: str | None) -> Iterator[None]:
    """Say, when a run that was begun anew stops early, under which name it goes on."""
    try:
        yield
    except BaseException:
        if if_run_exists == ANEW and RunFolder(folder).pending():
            told = f"To go on: `if_run_exists` '{CONTINUE}' and `name` '{folder.name}'"
            logger.warning(told)
            show_text(told, node_id)
        raise
