"""Fixtures of the host tests: a real ComfyUI, twice over.

`in_host(function, **arguments)` runs a function of your test module inside the host's process
(ComfyUI on `sys.path`, its core nodes and this pack loaded, no server) and returns what it
returned, through JSON. The function's first argument is the `Host` of `driver.py`::

    def tiny_base_shapes(host, count):           # runs in the host's process
        import torch

        outcome = host.run({"1": {"class_type": "NSYNC_TinyBase", "inputs": {}}, ...})
        rules = host.module("nsync.rules")       # never `import nsync`: the host names it otherwise
        return {"ok": outcome.ok, "error": outcome.error}

    def test_tiny_base_has_shapes(in_host):
        assert in_host(tiny_base_shapes, count=2)["ok"]

The module is loaded there as well, so helper functions and constants beside it just work; keep
host imports (`comfy`, `nodes`, `folder_paths`) inside the functions. A process takes about 10 s to
start: ask several questions in one. A function that fails raises `HostProcessFailed` here.

`server` is a live ComfyUI (`ComfyServer` of `scripts/comfy_host.py`): `server.run(prompt)`,
`.queue`, `.wait`, `.get`, `.post`, `.output`, `.home / "input"`. One for all tests.

`installation` says which ComfyUI. Every test that uses one of the three runs once per version in
`--hosts` (default: 0.30.0; `make test` asks for 0.30.0 and 0.16.3); `COMFYUI_PATH` replaces both.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from comfy_host import PACK_NAME, ComfyServer, Installation, link_pack

DRIVER = Path(__file__).with_name("driver.py")


class HostProcessFailed(AssertionError):
    """A function run inside the host raised; the text is the end of its output."""


@pytest.fixture(scope="session")
def base_directory(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty base directory (input, output, models, user) with the pack in custom_nodes."""
    base = tmp_path_factory.mktemp(f"comfy-{installation.name}")
    for folder in ("input", "output", "models", "user"):
        (base / folder).mkdir()
    link_pack(base / "custom_nodes")
    return base


@pytest.fixture(scope="session")
def server(installation: Installation, base_directory: Path) -> Iterator[ComfyServer]:
    """A live ComfyUI on a free loopback port."""
    log = base_directory / "log" / "server.log"
    with ComfyServer(installation, log, base_directory) as running:
        yield running


@pytest.fixture(scope="session")
def in_host(
    installation: Installation, base_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Any]:
    """Run a function of the test's module inside the host's process; see the module's text."""

    def run(function: Callable[..., Any], *, timeout: float = 300.0, **arguments: Any) -> Any:
        tmp_path = tmp_path_factory.mktemp(function.__name__)
        job, result = tmp_path / "job.json", tmp_path / "result.json"
        module = function.__code__.co_filename
        task = {"module": module, "function": function.__name__, "arguments": arguments}
        job.write_text(json.dumps(task))
        pack = base_directory / "custom_nodes" / PACK_NAME
        command = [installation.python, DRIVER, installation.folder, base_directory, pack]
        done = subprocess.run(
            [str(part) for part in (*command, job, result)],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode or not result.exists():
            raise HostProcessFailed((done.stdout + done.stderr)[-6000:])
        return json.loads(result.read_text())

    return run
