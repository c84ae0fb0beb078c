"""`make demo-resume`: a training is killed in a real ComfyUI, twice, and goes on as if nothing was.

The same graph is run under two names: once undisturbed; once with the process of ComfyUI killed
(SIGKILL) in mid-run, started again, and the graph queued again. Both LoRAs have the same bits.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from comfy_host import PACK, ComfyServer, Installation, Outcome
from demo import DemoFailed, finish, hand_over, options, output_folder, terminated_like_interrupted
from litegraph import Graph
from provision import prepare
from workflow_api import to_api

STEPS, SAVE_EVERY, KILLS = 60, 10, 2
TRAINER = {"rule": "plain", "steps": STEPS, "learning_rate": 1e-3, "rank": 8, "alpha": 8.0}
TRAINER |= {"schedule": "cosine", "preview_every": 0}


def graph(server: ComfyServer, name: str) -> dict[str, Any]:
    """Tiny base, a held-out style, one trainer, in the form that POST /prompt takes."""
    info = server.get("/object_info")
    drawn = Graph("resume", info, ("", ""))
    base = drawn.node("NSYNC_TinyBase", (0, 0))
    pictures = drawn.node("NSYNC_TinyStylePictures", (0, 0), style="sunset", count=16)
    sources = {"images": pictures["images"], "captions": pictures["captions"]}
    style_set = drawn.node("NSYNC_StyleSet", (0, 0), resolution=64, **sources)
    options = drawn.node("NSYNC_TrainingOptions", (0, 0), save_every=SAVE_EVERY, ema=0.99)
    sockets = {part: base[part] for part in ("model", "clip", "vae")}
    sockets |= {"style_set": style_set["style_set"], "options": options["options"]}
    drawn.node("NSYNC_ContrastiveLoRATrainer", (0, 0), name=name, **TRAINER, **sockets)
    return to_api(drawn.json(), info)


def undisturbed(server: ComfyServer, name: str) -> Outcome:
    """Train to the end; how it ended."""
    print(f"Training '{name}' without a disturbance", flush=True)
    return _good(server.wait(server.queue(graph(server, name)), 1200))


def disturbed(server: ComfyServer, name: str, run: Path) -> Outcome:
    """Train with the process killed in mid-run, again and again; how it ended."""
    moments = sorted(random.sample(range(5, STEPS - 5), KILLS))
    for moment in moments:
        server.queue(graph(server, name))
        _wait_for(server, run, moment)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        states = sorted(path.stem for path in (run / "state").glob("step_*"))
        print(f"  killed after step {_steps(run)}; states on disk: {', '.join(states) or 'none'}")
        server.stop()
        server.start()
        print("  ComfyUI started again, the same graph queued again", flush=True)
    outcome = _good(server.wait(server.queue(graph(server, name)), 1200))
    for line in server.log.read_text(errors="replace").splitlines():
        if "Going on after step" in line:
            print(f"  ComfyUI said: {line.strip()}")
    return outcome


def _wait_for(server: ComfyServer, run: Path, step: int) -> None:
    while _steps(run) < step:
        server.check_alive()
        time.sleep(0.02)


def _steps(run: Path) -> int:
    log = run / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def _good(outcome: Outcome) -> Outcome:
    if not outcome.ok:
        raise DemoFailed(f"{outcome.node_type} failed: {outcome.error}")
    return outcome


def _weights(run: Path) -> str:
    from safetensors.numpy import load_file

    file = Path(json.loads((run / "result.json").read_text())["files"]["lora"])
    digest = hashlib.sha256()
    for key, value in sorted(load_file(file).items()):
        digest.update(key.encode() + value.tobytes())
    print(f"  {file.name}: SHA-256 of its weights {digest.hexdigest()[:16]}...")
    return digest.hexdigest()


def demo(installation: Installation) -> None:
    """Both trainings and the comparison."""
    output = output_folder(installation)
    names = [f"{kind}_{int(time.time())}" for kind in ("undisturbed", "killed")]
    runs = [output / "nsync" / "runs" / name for name in names]
    log = output / "demo" / "log" / "resume.log"
    server = ComfyServer(installation, log, options=options(installation))
    with terminated_like_interrupted(), server:
        undisturbed(server, names[0])
        print(f"Training '{names[1]}', with ComfyUI killed {KILLS} times", flush=True)
        disturbed(server, names[1], runs[1])
    first, second = (_weights(run) for run in runs)
    if first != second:
        raise DemoFailed("the two LoRAs differ")
    print("The LoRA that was killed and resumed has the bits of the one that never was.")


def main() -> int:
    """Provision, change to the Python with torch, run."""
    installation = prepare()
    if Path(sys.prefix) != installation.python.parent.parent:
        return hand_over(installation, __file__)
    demo(installation)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(PACK))
    finish(main, "demo")
