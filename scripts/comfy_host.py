"""A real ComfyUI in a process of its own, and the few HTTP calls that its page makes.

Standard library only: it is used by the demo before anything is installed, and by the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parent.parent
PACK_NAME = "nsync-style"
READY_SECONDS = 240.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.25

Json = dict[str, Any]


@dataclass(frozen=True)
class Installation:
    """A ComfyUI on disk and the Python that runs it."""

    name: str
    folder: Path
    python: Path


@dataclass(frozen=True)
class Outcome:
    """How a prompt ended.

    Attributes:
        outputs: what the output nodes showed, by node id (`{"9": {"images": [...]}}`).
        error: type and text of the exception that the error dialog shows, empty on success.
        node_type: class id of the node that failed, empty on success.
    """

    outputs: Json
    error: str = ""
    node_type: str = ""

    @property
    def ok(self) -> bool:
        """Whether every node ran."""
        return not self.error


class PromptRefused(RuntimeError):
    """The host's validation refused a prompt; the text holds every reason."""


class HostFailed(RuntimeError):
    """ComfyUI did not start, or died; the text ends with the last lines of its log."""


def link_pack(custom_nodes: Path, pack: Path = PACK) -> Path:
    """Put the pack into a `custom_nodes` folder: by a symbolic link, or a copy where none works.

    A link that points elsewhere (the clone was moved) is renewed; an installation that holds this
    very pack already, under whatever name, is left as it is.

    Raises:
        FileExistsError: the name is taken by a folder that is not ours.
    """
    custom_nodes.mkdir(parents=True, exist_ok=True)
    here = [path for path in custom_nodes.iterdir() if path.resolve() == pack]
    if here:
        return here[0]
    place = custom_nodes / PACK_NAME
    if place.is_symlink():
        place.unlink()
    elif (place / ".copied").exists():
        shutil.rmtree(place)
    elif place.exists():
        raise FileExistsError(f"{place} is there already and is not this clone; move it away")
    try:
        place.symlink_to(pack, target_is_directory=True)
    except OSError:  # Windows without developer mode, or a file system without links
        parts = ("nodes", "nsync", "web", "workflows")
        for part in parts:
            shutil.copytree(pack / part, place / part)
        for file in ("__init__.py", "pyproject.toml"):
            shutil.copy(pack / file, place)
        (place / ".copied").touch()
    return place


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class ComfyServer:
    """A running ComfyUI, as a context manager; it is stopped by its own process id.

    Args:
        installation: which ComfyUI.
        log: file that takes its output.
        base: base directory (input, output, custom_nodes, models, user); the installation's own
            folders where it is None.
        port: loopback port; a free one where it is 0.
        options: further command-line options of ComfyUI's `main.py`.
    """

    installation: Installation
    log: Path
    base: Path | None = None
    port: int = 0
    options: tuple[str, ...] = ("--cpu",)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def home(self) -> Path:
        """The folder that holds `custom_nodes`, `input`, `output` and `user`."""
        return self.base or self.installation.folder

    @property
    def output(self) -> Path:
        """The folder that results are written under."""
        return self.home / "output"

    def start(self) -> None:
        """Start the process and wait until it answers.

        Raises:
            HostFailed: it ended or stayed silent.
        """
        link_pack(self.home / "custom_nodes")
        for folder in ("input", "output", "models", "user"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command(),
                cwd=self.log.parent,
                # No .pyc files: an installation that is not ours is not written into.
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process: politely, then not."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def get(self, path: str) -> Any:
        """The JSON that the server answers to a GET."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: Json) -> Any:
        """The JSON that the server answers to a POST of JSON (None where it answers nothing)."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def queue(self, prompt: Json, client_id: str = "", extra: Json | None = None) -> str:
        """Queue an API-format prompt as the page does; its prompt id.

        Raises:
            PromptRefused: validation found something; the text names node, input and reason.
        """
        body = {"prompt": prompt, "client_id": client_id or uuid.uuid4().hex}
        try:
            return self.post("/prompt", {**body, "extra_data": extra or {}})["prompt_id"]
        except urllib.error.HTTPError as error:
            raise PromptRefused(_refusal(error.read().decode(errors="replace"))) from error

    def outcome(self, prompt_id: str) -> Outcome | None:
        """How a queued prompt ended, None while it has not."""
        entry = self.get(f"/history/{prompt_id}").get(prompt_id)
        if entry is None or not entry["status"]["messages"]:
            return None
        for event, data in entry["status"]["messages"]:
            if event == "execution_error":
                text = f"{data['exception_type']}: {data['exception_message']}"
                return Outcome(entry["outputs"], text, data["node_type"])
            if event == "execution_interrupted":
                return Outcome(entry["outputs"], "interrupted", data["node_type"])
        return Outcome(entry["outputs"])

    def wait(self, prompt_id: str, timeout: float = 300.0) -> Outcome:
        """Wait for a queued prompt.

        Raises:
            HostFailed: the server died meanwhile.
            TimeoutError: it took longer than `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self.check_alive()
            outcome = self.outcome(prompt_id)
            if outcome is not None:
                return outcome
            time.sleep(POLL_SECONDS)
        raise TimeoutError(f"prompt {prompt_id} took more than {timeout:.0f} s\n{self.tail()}")

    def run(self, prompt: Json, timeout: float = 300.0) -> Outcome:
        """Queue a prompt and wait for its end."""
        return self.wait(self.queue(prompt), timeout)

    def image(self, entry: Json) -> bytes:
        """The file behind one entry of an output's `images`."""
        query = "&".join(f"{key}={entry[key]}" for key in ("filename", "subfolder", "type"))
        with urllib.request.urlopen(f"{self.url}/view?{query}", timeout=60) as answer:
            return answer.read()

    def check_alive(self) -> None:
        """Raise `HostFailed` if the process has ended."""
        code = None if self.process is None else self.process.poll()
        if code is not None:
            raise HostFailed(f"ComfyUI ended with exit code {code}\n{self.tail()}")

    def tail(self, lines: int = 30) -> str:
        """The last lines of its log, under the log's path."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join([f"--- {self.log}", *text.splitlines()[-lines:]])

    def _command(self) -> list[str]:
        main = self.installation.folder / "main.py"
        database = (self.home / "user" / "comfyui.db").resolve()
        command = [str(self.installation.python), str(main), "--listen", "127.0.0.1"]
        command += ["--port", str(self.port), "--disable-auto-launch", "--disable-api-nodes"]
        command += ["--temp-directory", str(self.log.parent), "--database-url"]
        command += [f"sqlite:///{database.as_posix()}", *self.options]
        return command + (["--base-directory", str(self.base)] if self.base else [])

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            self.check_alive()
            try:
                self.get("/system_stats")
            except OSError:
                time.sleep(POLL_SECONDS)
            else:
                return
        raise HostFailed(f"ComfyUI did not answer in {READY_SECONDS:.0f} s\n{self.tail()}")


def _refusal(text: str) -> str:
    """Every reason in the body of a refused prompt, one per line."""
    try:
        body = json.loads(text)
    except ValueError:
        return text
    reasons = [body["error"]["message"]] if "error" in body else []
    for number, node in body.get("node_errors", {}).items():
        for error in node["errors"]:
            name = error.get("extra_info", {}).get("input_name", "")
            where = f"{node['class_type']} ({number}) {name}".rstrip()
            reasons.append(f"{where}: {error['message']}: {error['details']}")
    return "\n".join(reasons) or text
