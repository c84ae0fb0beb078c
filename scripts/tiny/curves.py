"""Plot the training curves of the tiny base from its logs (needs matplotlib).

usage: python scripts/tiny/curves.py
"""

import json

import matplotlib.pyplot as plt
from common import ROOT

FOLDER = ROOT / "docs" / "tiny_base"


def main() -> None:
    """One panel per log in docs/tiny_base, loss over steps."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), constrained_layout=True)
    for axis, name in zip(axes, ("autoencoder", "base", "ruler"), strict=True):
        rows = [json.loads(x) for x in (FOLDER / f"{name}.log.jsonl").read_text().splitlines()]
        axis.plot([r["step"] for r in rows], [r["loss"] for r in rows])
        axis.set(title=name, xlabel="step", ylabel="loss", yscale="log")
        axis.grid(alpha=0.3)
    figure.savefig(FOLDER / "curves.png", dpi=80)


if __name__ == "__main__":
    main()
