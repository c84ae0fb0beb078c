"""Which ComfyUI the tests run against, and on what terms."""

import os
import sys
from pathlib import Path

import pytest
from comfy_host import Installation
from provision import locate


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--hosts",
        default="0.30.0",
        help="ComfyUI versions to run host tests against, e.g. 0.30.0,0.16.3",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that needs an installation once per version asked for.

    Browser tests see the first one only: the page of an older version is another package. So do
    tests marked `newest`: minutes long, of what the versions have in common.
    """
    if "installation" not in metafunc.fixturenames:
        return
    versions = metafunc.config.getoption("--hosts").split(",")
    marked = metafunc.definition.get_closest_marker("newest")
    if marked or "browser" in metafunc.definition.path.parts:
        versions = versions[:1]
    names = ["COMFYUI_PATH"] if os.environ.get("COMFYUI_PATH") else versions
    metafunc.parametrize("installation", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def installation(request: pytest.FixtureRequest) -> Installation:
    """The ComfyUI to test against; a missing one is a failure, never a skip."""
    given = os.environ.get("COMFYUI_PATH")
    folder = Path(given).expanduser().resolve() if given else locate(request.param)
    if not (folder / "main.py").exists():
        pytest.fail(f"no ComfyUI {request.param} in {folder}; run `make setup` first")
    return Installation(request.param, folder, Path(sys.executable))
