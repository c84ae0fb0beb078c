"""A ComfyUI without a server inside this very process, with the pack as `nsync_style`.

Everything of the host and of the pack may be imported only after `start`.
"""

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "scripts"))

from comfy_host import Installation  # noqa: E402 - not a package, but where set-up lives
from provision import prepare  # noqa: E402

PACKAGE = "nsync_style"


def use_its_python() -> Installation:
    """The ComfyUI of the benchmarks; this program is started anew where its Python is another."""
    installation = prepare()
    # By prefix, not by path: the Python of a virtual environment is often a link to another.
    if not installation.python.parent.parent.samefile(sys.prefix):
        os.execv(installation.python, [str(installation.python), *sys.argv])
    return installation


def start(installation: Installation, cpu: bool, options: tuple[str, ...] = ()) -> None:
    """Make ComfyUI and the pack importable, as ComfyUI's own `main.py` would.

    Args:
        cpu: compute on the CPU, whatever there is.
        options: further options of `main.py`.
    """
    base = tempfile.mkdtemp(prefix="nsync-benchmark-")
    for folder in ("input", "output", "models", "user"):
        (Path(base) / folder).mkdir()
    sys.argv = ["main.py", "--base-directory", base, "--disable-api-nodes", *options]
    sys.argv += ["--cpu"] if cpu else []
    sys.path.insert(0, str(installation.folder))
    import comfy.options

    comfy.options.enable_args_parsing()
    import utils.extra_config  # noqa: F401 - as main.py does, before comfy/utils.py can hide it

    _load_pack()


def _load_pack() -> None:
    spec = importlib.util.spec_from_file_location(
        PACKAGE, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[PACKAGE])
