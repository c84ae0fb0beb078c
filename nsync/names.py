"""Names that users give to what is made: each becomes a file's or a folder's."""

import re

from .errors import InputError

_PLAIN_NAME = re.compile(r"[^<>:\"/\\|?*\x00-\x1f.][^<>:\"/\\|?*\x00-\x1f]{0,99}")


def check_name(name: str, field: str = "name") -> str:
    """The name, stripped, if every system takes it for a file's name and it is no path.

    Args:
        field: the input that an error names.

    Raises:
        InputError: it is empty, a path, too long or has characters that file names cannot have.
    """
    stripped = name.strip()
    if not _PLAIN_NAME.fullmatch(stripped) or stripped.endswith("."):
        raise InputError(
            field,
            'a file name of at most 100 characters, without any of / \\ : * ? " < > |',
            repr(name),
            "Results go to folders of their own under the output folder.",
        )
    return stripped


def one_word(title: str) -> str:
    """A name that a prompt can hold after `embedding:`: neither spaces nor signs of emphasis."""
    return re.sub(r"[\s,()\[\]<>:]+", "_", title)


def export_title(run: str, steps: int, of: int) -> str:
    """What the results of a run are called after so many steps; one that was stopped says so."""
    return run if steps == of else f"{run}_stopped_at_{steps}"
