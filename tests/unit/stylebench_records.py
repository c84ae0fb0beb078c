"""Records of studies that were never run, with a known truth."""

import numpy as np

PICTURES = {"plain": 400, "plain wide": 800}
"""Pictures seen at the last step; 800 by every other arm, for it has negatives."""


def record(style, arm, seed, step=100, adapter="LoRA", pictures=None, **metrics):
    """One record; metrics that are not given are not there."""
    seen = PICTURES.get(arm, 800) * step // 100 if pictures is None else pictures
    return {
        "study": "invented", "style": style, "adapter": adapter, "arm": arm, "seed": seed,
        "step": step, "positives_seen": 4 * step, "pictures_seen": seen, "passes": seen,
        "seconds": step / 10, "metrics": metrics,
    }  # fmt: skip


def study(arms, *, styles=10, seeds=5, steps=(100,), noise=0.02, between=0.02, rng=0, **drift):
    """Records in which an arm's style hit rate is 0.5 and its own lift, less at earlier steps.

    Args:
        arms: lift by name.
        between: standard deviation of what a style adds to an arm's lift.
        drift: what is added to the drift of 0.1, by arm.
    """
    g = np.random.default_rng(rng)
    found = [record(f"s{i}", "base", k, 0, style_hit=0.0, content=1.0, drift=0.0)
             for i in range(styles) for k in range(seeds)]  # fmt: skip
    for arm, lift in arms.items():
        for i, of_style in enumerate(g.normal(0, between, styles)):
            for seed in range(seeds):
                for step in steps:
                    hit = (0.5 + lift + of_style) * step / steps[-1] + g.normal(0, noise)
                    more = drift.get(arm, 0.0) + g.normal(0, 0.001)
                    scores = {
                        "style_hit": np.clip(hit, 0, 1),
                        "content": 0.6 + g.normal(0, noise) / 2,
                    }
                    found.append(record(f"s{i}", arm, seed, step, **scores, drift=0.1 + more))
    return found
