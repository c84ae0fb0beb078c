"""The arrow of the house: nodes -> nsync, never back."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

HOST = ("comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server", "nodes")
"""Top-level modules of ComfyUI; `nodes` is also our own host side, as wrong here."""

CHECK = """
import importlib, importlib.abc, pkgutil, sys

host = set(sys.argv[1].split(","))

class Watch(importlib.abc.MetaPathFinder):
    # No host is installed here: a try/except around such an import would hide it from sys.modules.
    asked = set()

    def find_spec(self, name, path=None, target=None):
        self.asked.add(name.partition(".")[0])

sys.meta_path.insert(0, Watch())
import nsync
for module in pkgutil.walk_packages(nsync.__path__, "nsync."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] not in host:
            raise
print(",".join(sorted(host & (Watch.asked | {name.partition(".")[0] for name in sys.modules}))))
"""


def host_modules_of_library(root: Path) -> list[str]:
    """The host's modules that importing every module of the `nsync` under `root` asks for."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK, ",".join(HOST)],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "", "HOME": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [name for name in done.stdout.strip().split(",") if name]


@pytest.mark.parametrize("half", ["nsync", "nodes"])
def test_every_folder_is_a_package_and_says_what_it_is_for(half):
    """The check above walks packages only: a folder without `__init__.py` would go unseen."""
    for folder in {path.parent for path in (ROOT / half).rglob("*.py")}:
        told = folder / "__init__.py"
        assert told.exists(), folder
        assert ast.get_docstring(ast.parse(told.read_text(encoding="utf-8"))), folder


def test_library_never_imports_the_host():
    assert host_modules_of_library(ROOT) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import comfy.utils", "comfy"),
        ("from folder_paths import get_input_directory", "folder_paths"),
        ("try:\n    import server\nexcept ImportError:\n    pass", "server"),
        ("import math", None),
    ],
)
def test_the_check_above_can_fail(tmp_path, line, found):
    (tmp_path / "nsync" / "deep").mkdir(parents=True)
    for folder in ("nsync", "nsync/deep"):
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "nsync" / "deep" / "module.py").write_text(line + "\n")
    assert host_modules_of_library(tmp_path) == ([found] if found else [])
