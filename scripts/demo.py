"""`make demo`: a style is learned in a real ComfyUI, and shown.

Provisions, starts ComfyUI, queues `workflows/nsync_quickstart.json` as the page would, then draws
64 pictures with each saved LoRA and lets the ruler read them. Stops the server it started.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from comfy_host import PACK, ComfyServer, HostFailed, Installation, PromptRefused
from provision import SetupFailed, prepare

QUICKSTART = PACK / "workflows" / "nsync_quickstart.json"


class DemoFailed(RuntimeError):
    """The demo cannot go on; the text says why."""


def output_folder(installation: Installation) -> Path:
    """Where results go: `output/` of the clone, or of the installation that was given."""
    given = installation.name == "COMFYUI_PATH"
    return installation.folder / "output" if given else PACK / "output"


def options(installation: Installation) -> tuple[str, ...]:
    """Command-line options of ComfyUI: its own choice of device only where it was given to us."""
    if installation.name == "COMFYUI_PATH":
        probe = "import torch; raise SystemExit(not torch.cuda.is_available())"
        command = [str(installation.python), "-c", probe]
        return () if subprocess.run(command, check=False).returncode == 0 else ("--cpu",)
    return ("--cpu", "--output-directory", str(output_folder(installation)))


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that the server is stopped."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def hand_over(installation: Installation, script: str, *arguments: str) -> int:
    """Run a script under the Python that has torch; its exit code."""
    command = [str(installation.python), script, *arguments]
    with subprocess.Popen(command) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # it got the same signal, and tidies up
                process.send_signal(signal.SIGINT)


def demo(installation: Installation, setup_minutes: float) -> None:
    """Run the quickstart, judge it, print where everything is."""
    sys.path.insert(0, str(PACK))
    import demo_report
    import follow
    from workflow_api import to_api

    started = time.monotonic()
    output = output_folder(installation)
    folder = output / "demo"
    workflow = json.loads(QUICKSTART.read_text(encoding="utf-8"))
    log = folder / "log" / "comfyui.log"
    server = ComfyServer(installation, log, options=options(installation))
    with terminated_like_interrupted(), server:
        print(f"ComfyUI runs at {server.url} (its log: {log})", flush=True)
        prompt = to_api(workflow, server.get("/object_info"))
        for node in prompt.values():
            if node["class_type"] == demo_report.TRAINER:
                node["inputs"]["if_run_exists"] = "start anew"  # a demo trains every time
        outcome = follow.run(server, prompt, {"extra_pnginfo": {"workflow": workflow}})
        if not outcome.ok:
            raise DemoFailed(f"{outcome.node_type} failed: {outcome.error}")
        result = demo_report.Result.read(prompt, outcome.outputs, output)
        arms = {"base": None, **result.loras}
        pictures = demo_report.draw(server, prompt, result.prompts(), arms, "demo")
    summary = demo_report.write(folder, pictures, result)
    summary["minutes"] = round((time.monotonic() - started) / 60, 2)
    summary["setup_minutes"] = setup_minutes
    (folder / "demo.json").write_text(json.dumps(summary, indent=2) + "\n")
    demo_report.show(summary, folder)


def main() -> int:
    """Provision, change to the Python with torch, run."""
    parser = argparse.ArgumentParser(description="Teach the tiny base a style, and show it.")
    parser.add_argument("--setup-minutes", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args().setup_minutes
    started = time.monotonic()
    installation = prepare()
    if given is None and Path(sys.prefix) != installation.python.parent.parent:
        minutes = f"{(time.monotonic() - started) / 60:.2f}"
        return hand_over(installation, __file__, "--setup-minutes", minutes)
    demo(installation, given or 0.0)
    return 0


def finish(main: Callable[[], int], name: str) -> NoReturn:
    """Run a script's `main` and end the process; what a user can mend is told in one line."""
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    try:
        sys.exit(main())
    except (SetupFailed, HostFailed, PromptRefused, DemoFailed) as failure:
        sys.exit(f"[{name}] {failure}")
    except KeyboardInterrupt:
        sys.exit(f"[{name}] interrupted")


if __name__ == "__main__":
    finish(main, "demo")
