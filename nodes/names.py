"""Names that a workflow gives to what it makes."""

import re

from ..nsync.errors import InputError

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
