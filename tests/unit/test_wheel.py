"""An installed package holds the library with all its data, and nothing of the host side."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_package_is_the_whole_library_and_nothing_else(tmp_path):
    source, built = tmp_path / "source", tmp_path / "build"
    source.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("nsync", "nodes"):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "__init__.py"):
        shutil.copy(ROOT / name, source)
    # What `pip wheel` packs; its own command would want a network, or a package more.
    command = [sys.executable, "-W", "ignore", "-c", "import setuptools; setuptools.setup()"]
    subprocess.run([*command, "-q", "build", "--build-base", str(built)], cwd=source, check=True)
    wanted = {path.relative_to(source) for path in (source / "nsync").rglob("*") if path.is_file()}
    found = {path.relative_to(built / "lib") for path in built.rglob("*") if path.is_file()}
    assert found == wanted
    assert Path("nsync/py.typed") in found
