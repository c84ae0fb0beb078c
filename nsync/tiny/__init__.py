"""The embedded tiny base: a small text-to-image latent diffusion model and the world it learned.

Everything here is our own: the pictures are drawn by :mod:`nsync.tiny.world`, the weights were
trained on them by the scripts in `scripts/tiny`. It exists so that the quickstart, the tests and
the benchmarks run anywhere, with ground truth for style and content.
"""

from pathlib import Path

BASE_FOLDER = Path(__file__).parent / "base"
"""The base in diffusers' folder layout (fp16 safetensors)."""

RULER_FILE = Path(__file__).parent / "ruler.safetensors"
"""The weights of :class:`nsync.tiny.ruler.Ruler`."""
