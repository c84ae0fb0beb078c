"""Captions as files: where they lie, and what can be wrong with them."""

from pathlib import Path

from .folder import is_within

MAX_CAPTION = 2000
"""Characters; no text encoder reads more, and a longer file is hardly a caption."""


def caption_path(picture: Path) -> Path:
    """Where the caption of a picture is kept: `x.txt` beside `x.png`."""
    return picture.with_suffix(".txt")


def read_caption(path: Path, folder: Path) -> tuple[str, str]:
    """The caption in a file of `folder`, and what is wrong with it (empty if nothing is)."""
    if not path.is_file():
        return "", f"no caption: {path.name} is missing"
    if not is_within(folder, path):
        return "", f"{path.name} is a link that points out of the folder"
    try:
        if path.stat().st_size > 4 * MAX_CAPTION + 3:  # UTF-8 takes up to 4 bytes, a mark 3
            return "", _too_long(path.name)
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return "", f"{path.name} is not UTF-8 ({error.reason} at byte {error.start})"
    except OSError as error:
        return "", f"{path.name} cannot be read ({error.strerror})"
    return as_caption(text, path.name)


def as_caption(text: str, name: str = "its caption") -> tuple[str, str]:
    """The caption on one line, and what is wrong with it (empty if nothing is)."""
    caption = " ".join(text.split())
    if not caption:
        return "", f"{name} is empty"
    return (caption, _too_long(name)) if len(caption) > MAX_CAPTION else (caption, "")


def _too_long(name: str) -> str:
    return f"{name} is longer than {MAX_CAPTION} characters"
