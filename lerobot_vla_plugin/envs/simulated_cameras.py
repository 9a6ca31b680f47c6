"""Pictures of the simulated world as a reader of the twin's cameras gets them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.twin.jpeg import through_jpeg
from lerobot_vla_plugin.twin.rendering import RendererName, open_renderer
from lerobot_vla_plugin.twin.stage import CAMERAS
from lerobot_vla_plugin.twin.world import World


class SimulatedCameras:
    """Takes pictures of a world. OpenGL wants them taken, and the cameras closed, by the thread that made them.

    Args:
        world: The world.
        width: Width of the pictures, in [px].
        height: Height of the pictures, in [px].
        names: Which of `CAMERAS`.
        renderer: One of `rendering.RENDERERS`.

    Attributes:
        renderer: Name of the renderer in use.

    Raises:
        ValueError: There is no such camera or renderer.
        RuntimeError: This system does not have the renderer.
    """

    def __init__(
        self,
        world: World,
        width: int,
        height: int,
        names: Sequence[str] = CAMERAS,
        renderer: RendererName = "auto",
    ) -> None:
        unknown = [name for name in names if name not in CAMERAS]
        if unknown or not names:
            raise ValueError(f"expected some of the cameras {list(CAMERAS)}, got {list(names)}")
        self._names = tuple(names)
        self._renderer = open_renderer(world, width, height, renderer)
        self.renderer = self._renderer.name

    def take(self) -> dict[str, NDArray[np.uint8]]:
        """Pictures of now: camera -> RGB picture, shape (height, width, 3)."""
        return {name: through_jpeg(self._renderer.render(name)) for name in self._names}

    def close(self) -> None:
        """Give back what the system lent."""
        self._renderer.close()
