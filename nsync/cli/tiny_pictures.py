"""Draw pictures of the tiny world in one style, with captions: a style set to try things with.

nsync tiny-pictures --style sunset --folder pictures
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..files import write_atomic
from ..pictures.captions import caption_path
from ..pictures.images import png, to_picture
from ..runs.judgements import Judgement, at_least, one_of
from ..tiny.world import STYLES, Styled, draw_scenes, render
from .main import Outcome
from .sections import a_place


@dataclass(frozen=True)
class TinyPictures:
    """What is asked.

    Attributes:
        style: of the pictures; the tiny base has never seen the held-out ones.
        folder: takes the pictures and captions; it must be empty, or not there.
        count: how many pictures.
        seed: what they show comes from this: the same seed, the same scenes in any style.
        style_in_captions: captions say the style as well, as `nsync supcon` wants them where
            styles are the labels.
    """

    style: str = ""
    folder: Path | None = None
    count: int = 48
    seed: int = 0
    style_in_captions: bool = False

    def judgements(self) -> list[Judgement]:
        """The rules of single keys."""
        return [
            one_of(self, "style", tuple(STYLES)),
            a_place(self, "folder") if self.folder else ("folder", "a folder", None, False),
            at_least(self, "count", 1),
            at_least(self, "seed", 0),
        ]

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with it as a whole: (key, what)."""
        if self.folder and self.folder.is_dir() and any(self.folder.iterdir()):
            yield "folder", f"expected an empty folder, or none yet; got {self.folder}"


FILE = None
DEFAULT = TinyPictures()
SHARES = ()
LEARNS = False


def run(asked: TinyPictures) -> Outcome:
    """Draw and write them."""
    scenes = draw_scenes(asked.count, asked.seed)
    for number, picture in enumerate(render(scenes, asked.style, asked.seed), 1):
        path = asked.folder / f"image_{number:04}.png"
        write_atomic(path, png(to_picture(picture)))
        scene = scenes[number - 1]
        styled = Styled(scene, asked.style).caption
        caption = styled if asked.style_in_captions else scene.caption()
        write_atomic(caption_path(path), caption + "\n")
    return Outcome(f"{asked.count} pictures with captions in {asked.folder}.")
