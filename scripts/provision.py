"""Provision a real ComfyUI in git-ignored folders of the clone."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def locate(version: str) -> Path:
    """Where the ComfyUI of this version is, or will be, unpacked."""
    return ROOT / ".host" / version / "ComfyUI"
