"""The files that registries and installers read agree with each other."""

import re
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib")  # Python 3.10 has none; later ones check for it

ROOT = Path(__file__).resolve().parents[2]
NEVER = ("torch", "torchvision", "torchaudio", "torchsde")
"""Packages that the host brings along, and whose replacement breaks it."""


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements():
    return (ROOT / "requirements.txt").read_text(encoding="utf-8").split()


def test_requirements_equal_dependencies():
    assert requirements() == project()["project"]["dependencies"]


def test_requirements_are_floors_and_leave_the_hosts_packages_alone():
    for line in requirements():
        name, floor = line.split(">=")
        assert name.lower() not in NEVER
        assert re.fullmatch(r"\d+(\.\d+)+", floor), line


def test_registry_section_is_complete():
    comfy = project()["tool"]["comfy"]
    assert comfy["PublisherId"]
    assert comfy["DisplayName"]
    assert comfy["Icon"].endswith("docs/icon.svg")
    assert (ROOT / "docs" / "icon.svg").exists()
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    assert "comfyui" not in project()["project"]["name"].lower()


def test_licence_is_the_whole_apache_licence():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.split()[:2] == ["Apache", "License"]
    assert "END OF TERMS AND CONDITIONS" in text


def test_python_files_are_ascii():
    """Windows consoles and comfy-test read sources in a code page."""
    ours = [ROOT / "__init__.py"]
    for folder in ("nodes", "nsync", "scripts", "tests", "benchmarks"):
        ours += (ROOT / folder).rglob("*.py")
    assert [str(path) for path in ours if not path.read_bytes().isascii()] == []


def test_every_template_has_a_thumbnail():
    """The page asks for one beside each workflow, and logs an error where there is none."""
    for workflow in (ROOT / "workflows").glob("*.json"):
        assert workflow.with_suffix(".jpg").stat().st_size < 100_000, workflow.name
