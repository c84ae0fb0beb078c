"""How long a training step takes: ours, the authors' released loop, ComfyUI's own trainer.

    python benchmarks/step_time.py [--base tiny sd15 sdxl] [--size full|small] [--compile]
                                   [--repeats N] [--write docs/benchmarks.md]

A step is everything from one update to the next: drawing the batch, passes, rule, optimizer, log.
See benchmarks/README.md.
"""

import argparse
from pathlib import Path

from comfy_process import start, use_its_python
from tables import publish

BASES = ("tiny", "sd15", "sdxl")
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Measure every base that was asked for."""
    options = _options()
    installation = use_its_python()
    import torch

    cuda = torch.cuda.is_available() and options.device != "cpu"
    if options.device == "cuda" and not cuda:
        raise SystemExit("--device cuda: this torch sees no CUDA device")
    start(installation, cpu=not cuda)
    from step_report import Plan, measured, no_gpu

    plan = Plan(options.repeats, options.compile, options.size == "small")
    sections = {}
    for base in options.base:
        if base != "tiny" and not (cuda or plan.small):
            sections[f"step_time {base}"] = no_gpu(base)
            continue
        name = f"step_time {base}" + (" small" if plan.small and base != "tiny" else "")
        sections[name] = measured(base, plan)
    publish(sections, options.out, ROOT / "docs/benchmarks.md" if options.write else None)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How long a training step takes.")
    parser.add_argument("--base", nargs="+", choices=BASES, default=list(BASES))
    parser.add_argument(
        "--size", choices=("full", "small"), default="full", help="small: SD1.5 and SDXL, narrower"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--repeats", type=int, default=7, help="rounds (default 7)")
    parser.add_argument("--compile", action="store_true", help="torch.compile as one more arm")
    parser.add_argument("--out", type=Path, help="write the tables to this file")
    parser.add_argument(
        "--write", action="store_true", help="put the tables into docs/benchmarks.md"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
