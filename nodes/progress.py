"""What the page shows while a node works: bar, text, preview; and its stop button."""

import math
from collections.abc import Callable
from pathlib import Path

from comfy.model_management import (
    InterruptProcessingException,
    interrupt_current_processing,
    throw_exception_if_processing_interrupted,
)
from comfy.utils import ProgressBar
from PIL import Image
from server import PromptServer

from ..nsync.denoiser import Denoiser, SamplerSettings
from ..nsync.evaluation.watch import StyleWatch
from ..nsync.files import write_atomic
from ..nsync.pictures.images import png, to_picture
from ..nsync.runs.log import POSITIVE
from ..nsync.runs.parts import StepReport
from .host.adapter import HostDenoiser

PREVIEW_SIDE = 512


def on_picture() -> Callable[[int, int], None]:
    """The host's progress bar and its stop button, as a callback of (done, all)."""
    bars: list[ProgressBar] = []

    def report(done: int, total: int) -> None:
        throw_exception_if_processing_interrupted()
        if not bars:
            bars.append(ProgressBar(total))
        bars[0].update_absolute(done, total)

    return report


class TrainingProgress:
    """Step, loss and time left on the node, and the stop button heeded at every step.

    Args:
        headline: the log's name of the loss that is shown.
        run, runs: which of the node's runs it is (0-based), of how many.
        title: what the run is called where there are several.
    """

    def __init__(
        self,
        steps: int,
        node_id: str | None,
        headline: str = POSITIVE,
        run: int = 0,
        runs: int = 1,
        title: str = "",
    ) -> None:
        self.done = 0
        self._headline, self._before = headline, run * steps
        self._bar = ProgressBar(runs * steps, node_id=node_id)
        self._node = node_id
        self._title = f"{title}, {run + 1} of {runs} | " if title else ""
        self._warning = ""

    def on_step(self, report: StepReport) -> None:
        """Show a step; raises the host's interrupt if the user pressed stop."""
        self.done = report.step
        self._warning = report.warning or self._warning
        left = _duration(report.remaining)
        loss = report.values.get(self._headline, math.nan)
        text = f"{self._title}step {report.step} of {report.steps} | loss {loss:.4f} | {left} left"
        show_text(f"{text}\n{self._warning}".strip(), self._node)
        throw_exception_if_processing_interrupted()
        self._bar.update_absolute(self._before + report.step)

    def show(self, picture: Image.Image) -> None:
        """Show a preview picture on the node."""
        self._bar.update_absolute(self._before + self.done, preview=("JPEG", picture, PREVIEW_SIDE))


class Previews:
    """Pictures drawn by the host's sampler from the model being trained, one seed, one prompt."""

    def __init__(
        self,
        denoiser: Denoiser,
        prompt: str,
        size: tuple[int, int],
        sampler: SamplerSettings,
        seed: int,
        folder: Path,
        progress: TrainingProgress,
    ) -> None:
        self._request = {"prompts": [prompt], "seeds": [seed], "size": size, "settings": sampler}
        self._denoiser, self._folder, self._progress = denoiser, folder, progress
        self.latest: Path | None = None

    def __call__(self, done: int) -> None:
        """Draw, save and show the picture after `done` steps."""
        try:
            self._draw(done)
        except InterruptProcessingException:
            interrupt_current_processing()  # heeded after the next step, where work is saved

    def _draw(self, done: int) -> None:
        pixels = self._denoiser.generate(**self._request)[0]
        picture = to_picture(pixels)
        path = self._folder / f"step_{done:06}.png"
        write_atomic(path, png(picture))
        self.latest = path
        self._progress.show(picture)


class HostStyleWatch(StyleWatch):
    """A style watch that a press on stop ends, and the training with it."""

    _denoiser: HostDenoiser

    def look(self, done: int) -> dict[str, float]:
        """See `StyleWatch.look`.

        Raises:
            RuntimeError: the user pressed stop.
        """
        try:
            return super().look(done)
        except InterruptProcessingException as error:
            interrupt_current_processing()  # heeded after the next step, where work is saved
            raise RuntimeError("stopped by the user") from error
        finally:
            self._denoiser.reload()  # an encoder may have taken its place


def show_text(text: str, node_id: str | None) -> None:
    """Show a text on the node, until another one is shown."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
