"""Fixtures of the browser tests: ComfyUI's real page in a real, headless Chromium.

Playwright drives the system's Chromium: CHROMIUM=/path names it, else `chromium`,
`chromium-browser` or `google-chrome` on the PATH is taken. A missing browser is a failure.
Screenshots are kept in `output/screenshots/`.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_host import PACK, ComfyServer, Installation, link_pack
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SCREENSHOTS = PACK / "output" / "screenshots"
READY_MS = 120_000


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser."""
    given = os.environ.get("CHROMIUM", "")
    found = [path for path in (given, *map(shutil.which, NAMES)) if path and Path(path).exists()]
    if not found:
        pytest.fail(
            f"no Chromium: looked at CHROMIUM={given!r} and for {', '.join(NAMES)} on the PATH. "
            "Debian, Ubuntu: apt-get install chromium. Elsewhere set CHROMIUM to its program."
        )
    return found[0]


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """One headless browser for all tests."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium, headless=True, args=list(FLAGS)
        )
        yield running
        running.close()


@pytest.fixture(scope="session")
def server(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyServer]:
    """A live ComfyUI with the pack, and with the files of a user whom the workflows expect."""
    base = tmp_path_factory.mktemp("comfy-browser")
    link_pack(base / "custom_nodes")
    checkpoint = base / "models" / "checkpoints" / "v1-5-pruned-emaonly-fp16.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    (base / "input" / "my_style").mkdir(parents=True)
    with ComfyServer(installation, base / "log" / "server.log", base) as running:
        yield running


class Console:
    """What the page wrote to its console as errors, and exceptions that nobody caught."""

    def __init__(self, page: Page) -> None:
        self.errors: list[str] = []
        page.on("console", self._message)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _message(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def ours(self) -> list[str]:
        """Errors that name this pack; the page itself complains of missing networks and more."""
        return [text for text in self.errors if "nsync" in text.lower()]


@pytest.fixture
def page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """ComfyUI's page, loaded and past its first-run dialogs."""
    context = browser.new_context(viewport={"width": 2560, "height": 1440})
    fresh = context.new_page()
    fresh.console = Console(fresh)
    # A user who has been here before: no tutorial, no template browser over the canvas.
    settings = {"Comfy.TutorialCompleted": True, "Comfy.InstalledVersion": "1.0.0"}
    settings["LiteGraph.Canvas.MinFontSizeForLOD"] = 0  # screenshots with text, however far away
    for name, value in settings.items():
        server.post(f"/settings/{name}", value)
    fresh.goto(server.url, wait_until="domcontentloaded", timeout=READY_MS)
    fresh.wait_for_function("window.app?.graph && window.app.vueAppReady", timeout=READY_MS)
    yield fresh
    context.close()
