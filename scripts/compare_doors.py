"""The quickstart's training in the graph and by the command line: the same LoRA, by the ruler?

    python scripts/compare_doors.py [--seeds 3]

In a real ComfyUI the quickstart's NSYNC trainer runs with each seed; then `nsync tiny-pictures` and
`nsync train`, with the very YAML that docs/command_line.md shows, run with each as well. Both write
into one output folder. ComfyUI draws the same held-out captions from the same noise through all of
these LoRAs by its Load LoRA, and the ruler reads them. `output/doors` has the pictures, the sheet
and the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_host import PACK, ComfyServer, Installation
from demo import QUICKSTART, DemoFailed, finish, hand_over, terminated_like_interrupted
from provision import prepare
from workflow_api import to_api

if TYPE_CHECKING:  # of the host's Python, which runs the rest
    from torch import Tensor

    from nsync.tiny.scenes import Scene

Json = dict[str, Any]

OUTPUT = PACK / "output" / "doors"
PAGE = PACK / "docs" / "command_line.md"
GRAPH, COMMAND_LINE = DOORS = ("graph", "command_line")
ROWS = 6


def name_of(door: str, seed: int) -> str:
    """Of a run and of its LoRA."""
    return f"{door}_{seed}"


def train_in_graph(server: ComfyServer, prompt: Json, seed: int) -> None:
    """Run the quickstart's NSYNC trainer and what it stands on, and nothing else of the graph."""
    trainer = next(n for n, node in prompt.items() if node["inputs"].get("rule") == "nsync")
    chosen = {number: prompt[number] for number in _needed(prompt, trainer)}
    inputs = chosen[trainer]["inputs"]
    inputs |= {"seed": seed, "name": name_of(GRAPH, seed), "if_run_exists": "start anew"}
    print(f"training in the graph, seed {seed}", flush=True)
    outcome = server.run(chosen, timeout=3600)
    if not outcome.ok:
        raise DemoFailed(f"{outcome.node_type} failed: {outcome.error}")


def train_by_command_line(seed: int) -> None:
    """Do what the page says, with another name, seed and output."""
    place = OUTPUT / "command_line"
    place.mkdir(exist_ok=True)
    if not (place / "pictures").is_dir():
        _nsync(place, "tiny-pictures", "--style", "sunset", "--folder", "pictures")
    page = PAGE.read_text(encoding="utf-8")
    (place / "train.yaml").write_text(page.split("```yaml\n")[1].partition("```")[0])
    told = {
        "name": name_of(COMMAND_LINE, seed),
        "settings.seed": str(seed),
        "output": str(OUTPUT),
        "negatives_name": "of_the_command_line",
        "model.device": "cpu",
    }
    flags = [word for key, value in told.items() for word in (f"--{key}", value)]
    print(f"training by command line, seed {seed}", flush=True)
    _nsync(place, "train", "train.yaml", *flags)


def differing_settings() -> Json:
    """The settings that the two doors' first runs do not share: none but their words for a run."""
    runs = [OUTPUT / "nsync" / "runs" / name_of(door, 0) / "config.json" for door in DOORS]
    graph, line = (json.loads(run.read_text())["settings"] for run in runs)
    return {key: [graph[key], line[key]] for key in graph if graph[key] != line[key]}


def judge(server: ComfyServer, prompt: Json, seeds: int) -> Json:
    """Draw by every LoRA in ComfyUI, write the sheet, and tell what the ruler reads."""
    import demo_report

    from nsync.tiny.world import draw_scenes, render

    source = next(n["inputs"] for n in prompt.values() if "TinyStylePictures" in n["class_type"])
    trained = {scene.caption() for scene in draw_scenes(source["count"], source["seed"])}
    scenes = demo_report.scenes_beside(trained)
    prompts = [f"{scene.caption()} in the style of sks" for scene in scenes]
    names = [name_of(door, seed) for seed in range(seeds) for door in DOORS]
    loras = {"base": None, **{name: f"{name}.safetensors" for name in names}}
    pictures = demo_report.draw(server, prompt, prompts, loras, "drawn")
    real = render(scenes, source["style"], demo_report.SCENE_SEED)
    sheet = demo_report.side_by_side({"reference": real, **pictures}, prompts[:ROWS])
    sheet.save(OUTPUT / "sheet.png")
    return {arm: scores(pixels, real, scenes, source["style"]) for arm, pixels in pictures.items()}


def scores(pixels: Tensor, real: Tensor, scenes: list[Scene], style: str) -> Json:
    """Shares of hits, the style's mean probability, and the Frechet distance to true renders."""
    from nsync.evaluation import frechet_distance
    from nsync.tiny.ruler import Ruler

    ruler = Ruler.load()
    read, truth = ruler.read(pixels), ruler.read(real).features.double()
    content = read.content_hits(scenes, ("shape", "colour"))
    return {
        "style": read.style_hits(style).double().mean().item(),
        "shape and colour": content.double().mean().item(),
        "probability": read.probabilities["style"][:, read.styles.index(style)].mean().item(),
        "frechet": frechet_distance(truth, read.features.double()),
    }


def spread(found: Json, seeds: int) -> Json:
    """Of each figure: the doors' means, their difference, and how far seeds of a door lie apart."""
    from statistics import mean, stdev

    told = {}
    for figure in found["base"]:
        values = {d: [found[name_of(d, s)][figure] for s in range(seeds)] for d in DOORS}
        means = {door: mean(each) for door, each in values.items()}
        within = max(stdev(each) for each in values.values())
        told[figure] = {**means, "apart": means[COMMAND_LINE] - means[GRAPH], "seeds": within}
    return told


def compare(installation: Installation, seeds: int) -> None:
    """Train through both doors, draw, judge, print."""
    sys.path.insert(0, str(PACK))
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    workflow = json.loads(QUICKSTART.read_text(encoding="utf-8"))
    options = ("--cpu", "--output-directory", str(OUTPUT))
    server = ComfyServer(installation, OUTPUT / "log" / "comfyui.log", options=options)
    with terminated_like_interrupted(), server:
        prompt = to_api(workflow, server.get("/object_info"))
        for seed in range(seeds):
            train_in_graph(server, prompt, seed)
            train_by_command_line(seed)
        found = judge(server, prompt, seeds)
    told = {"differing settings": differing_settings(), "arms": found}
    told["doors"] = spread(found, seeds)
    (OUTPUT / "doors.json").write_text(json.dumps(told, indent=2) + "\n")
    print(json.dumps(told, indent=2))


def main() -> int:
    """Provision, change to the Python with torch, run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="2 or more")
    seeds = parser.parse_args().seeds
    installation = prepare()
    if Path(sys.prefix) != installation.python.parent.parent:
        return hand_over(installation, __file__, "--seeds", str(seeds))
    compare(installation, seeds)
    return 0


def _needed(prompt: Json, number: str) -> set[str]:
    """A node and all that it stands on."""
    links = [value[0] for value in prompt[number]["inputs"].values() if isinstance(value, list)]
    return {number}.union(*(_needed(prompt, link) for link in links))


def _nsync(place: Path, *words: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PACK)}
    command = [sys.executable, "-m", "nsync", *words]
    if subprocess.run(command, cwd=place, env=environment, check=False).returncode:
        raise DemoFailed(f"`nsync {' '.join(words)}` failed")


if __name__ == "__main__":
    finish(main, "doors")
