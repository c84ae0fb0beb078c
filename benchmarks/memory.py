"""How much memory training takes on a GPU, by preset and base.

    python benchmarks/memory.py [--base sd15 sdxl] [--preset "8 GB" ...] [--write]

With a CUDA device every row is a process of its own, measured by torch's allocator. Without one
it is computed from the sizes of the tensors that a step keeps alive; see benchmarks/README.md.
"""

import argparse
import json
from pathlib import Path

from comfy_process import ROOT, start, use_its_python
from tables import publish

BASES = ("sd15", "sdxl")


def main() -> None:
    """Compute or measure every row that was asked for."""
    options = _options()
    installation = use_its_python()
    import torch

    cuda = torch.cuda.is_available() and options.device != "cpu"
    # The host's way of attention on NVIDIA's cards; on a CPU it would take another.
    start(installation, cpu=not cuda, options=("--use-pytorch-cross-attention",))
    from cuda_rules import follow_cuda
    from memory_report import measured, section

    if not cuda:
        follow_cuda()

    if options.row:
        print(json.dumps(measured(*options.row)))
        return
    sections = {f"memory {base}": section(base, options.preset, cuda) for base in options.base}
    publish(sections, options.out, ROOT / "docs/benchmarks.md" if options.write else None)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How much memory training takes on a GPU.")
    parser.add_argument("--base", nargs="+", choices=BASES, default=list(BASES))
    parser.add_argument("--preset", nargs="+", help="some of the node's presets (default: all)")
    parser.add_argument(
        "--device", choices=("auto", "cpu"), default="auto", help="cpu: compute, do not measure"
    )
    parser.add_argument("--out", type=Path, help="write the table to this file")
    parser.add_argument(
        "--write", action="store_true", help="put the table into docs/benchmarks.md"
    )
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)  # in its own process
    return parser.parse_args()


if __name__ == "__main__":
    main()
