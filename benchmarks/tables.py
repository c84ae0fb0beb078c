"""Results as Markdown, on the screen and between the markers of a page; what they were made on."""

import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

_PACKAGES = ("torch", "peft", "diffusers")


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        return cls(median(values), min(values), max(values))

    def told(self, scale: float, digits: int) -> str:
        """`median (least..most)`, each times `scale`."""
        middle, least, most = (
            f"{value * scale:.{digits}f}" for value in (self.median, self.least, self.most)
        )
        return f"{middle} ({least}..{most})"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def verdict(fine: bool) -> str:
    """Whether a bar was met."""
    return "pass" if fine else "FAIL"


def surroundings(device: str, host: str = "") -> str:
    """Hardware and versions in one line.

    Args:
        device: the accelerator's name, or "no GPU".
        host: ComfyUI's version; "" where it takes no part.
    """
    import torch  # not at the top: this program may yet have to look for a Python that has it

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {version(name)}" for name in _PACKAGES]
    versions += [f"ComfyUI {host}"] if host else []
    return (
        f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {device}; "
        f"{', '.join(versions)}; load of the machine before the start {load:.1f}."
    )


def publish(sections: Mapping[str, str], out: Path | None, page: Path | None) -> None:
    """Print sections, write them to a file, and put them between the markers of a page.

    Raises:
        ValueError: the page has no such markers.
    """
    text = "\n\n".join(sections.values()) + "\n"
    print(text)
    if out:
        out.write_text(text, encoding="utf-8")
    if page:
        content = page.read_text(encoding="utf-8")
        for name, section in sections.items():
            content = _replaced(content, name, section, page)
        page.write_text(content, encoding="utf-8")


def _replaced(content: str, name: str, section: str, page: Path) -> str:
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(content):
        raise ValueError(f"{page}: expected the markers {begin} and {end}")
    return pattern.sub(lambda _: f"{begin}\n{section}\n{end}", content)


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()
