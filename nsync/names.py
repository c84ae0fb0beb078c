"""Names that users give to what is made: each becomes a file's or a folder's."""

import re

from .errors import InputError

_PLAIN_NAME = re.compile(r"[^<>:\"/\\|?*\x00-\x1f.][^<>:\"/\\|?*\x00-\x1f]{0,99}")
_DEVICES = re.compile(r"(CON|AUX|NUL|PRN|COM[1-9]|LPT[1-9])(\..*)?", re.IGNORECASE)
"""What Windows takes for a device, whatever follows a dot."""
_MOST_BYTES = 180
"""File systems take 255; what is made of a name adds to it, and a temporary name more."""


def check_name(name: str, field: str = "name") -> str:
    """The name, stripped, if every system takes it for a file's name and it is no path.

    Args:
        field: the input that an error names.

    Raises:
        InputError: it is empty, a path, too long or has characters that file names cannot have.
    """
    stripped = name.strip()
    plain = _PLAIN_NAME.fullmatch(stripped) and not stripped.endswith(".")
    if not plain or _DEVICES.fullmatch(stripped) or len(stripped.encode()) > _MOST_BYTES:
        raise InputError(
            field,
            f"a file name of at most 100 characters and {_MOST_BYTES} bytes, without any of "
            '/ \\ : * ? " < > |, and no device of Windows (CON, NUL)',
            repr(name),
            "Results go to folders of their own under the output folder.",
        )
    return stripped


def cut_to_bytes(text: str, most: int) -> str:
    """The beginning of a text that takes so many bytes at most, whole characters of it."""
    return text.encode()[:most].decode(errors="ignore")


def one_word(title: str) -> str:
    """A name that a prompt can hold after `embedding:`: neither spaces nor signs of emphasis."""
    return re.sub(r"[\s,()\[\]<>:]+", "_", title)


def export_title(run: str, steps: int, of: int) -> str:
    """What the results of a run are called after so many steps; one that was stopped says so."""
    return run if steps == of else f"{run}_stopped_at_{steps}"
