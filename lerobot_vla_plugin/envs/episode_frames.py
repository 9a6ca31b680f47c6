"""Pictures of an episode, every half second, as JPEG files that anything shows."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

PERIOD_S = 0.5


class EpisodeFrames:
    """Writes `<camera>_<step>.jpg` as the episode goes on, so that nothing is lost when it is interrupted.

    Args:
        folder: Where they go; made with the first picture.
        fps: Steps a second, in [Hz].
    """

    def __init__(self, folder: Path, fps: int) -> None:
        self._folder = folder
        self._period = max(1, round(PERIOD_S * fps))

    def add(self, step: int, pictures: Mapping[str, np.ndarray], *, last: bool = False) -> None:
        """Keep the pictures of a step where they are due.

        Args:
            step: Actions up to now.
            pictures: Camera -> RGB picture, shape (height, width, 3), uint8.
            last: Whether the episode ends here, and they are kept in any case.
        """
        if step % self._period and not last:
            return
        from PIL import Image

        self._folder.mkdir(parents=True, exist_ok=True)
        for camera, picture in pictures.items():
            Image.fromarray(picture).save(self._folder / f"{camera}_{step:05d}.jpg", quality=90)
