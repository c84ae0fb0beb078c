"""Figures without a window: made, drawn, and given back as pictures."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(**options: object) -> Figure:
    """An empty white figure; options are matplotlib's."""
    # Not at the top: the host imports what plots when it starts, and an analysis needs no plots.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(facecolor="white", **options)
    FigureCanvasAgg(figure)
    return figure


def drawn(figure: Figure) -> Image.Image:
    """The figure as an RGB picture; its texts are as they stand, `$` and all."""
    from matplotlib.table import Cell
    from matplotlib.text import Text

    in_tables = (cell.get_text() for cell in figure.findobj(Cell))  # no children of the figure
    for text in (*figure.findobj(Text), *in_tables):
        text.set_parse_math(False)  # names of arms are no mathematics
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return Image.open(data).convert("RGB")
