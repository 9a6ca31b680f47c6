"""What the cameras see: the scenes of `scene` and `world`, put into the poses that a picture tells."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from lerobot_vla_plugin.twin.scene import Scene
from lerobot_vla_plugin.twin.scenes import draw_layout
from lerobot_vla_plugin.twin.stage import Drawable
from lerobot_vla_plugin.twin.world import World


class Pictured(Drawable, Protocol):
    """A scene that shows what a picture tells."""

    def show(self, picture: Mapping[str, Any]) -> None:
        """Take over everything that is to be seen."""
        ...


class PicturedScene(Scene):
    """The arm and the cube of `TouchLife`."""

    def show(self, picture: Mapping[str, Any]) -> None:
        """Take over "joints" and "cube_m", as for `Scene.place`."""
        self.place(picture["joints"], np.array(picture["cube_m"]))


class PicturedWorld(World):
    """The world of `TaskLife`."""

    _shown: tuple[str, int, str] | None = None

    def show(self, picture: Mapping[str, Any]) -> None:
        """Take over the scene with its look ("task", "seed", "color") and where all is in it ("qpos")."""
        scene = (picture["task"], picture["seed"], picture["color"])
        if scene != self._shown:
            self.reset(draw_layout(*scene))
            self._shown = scene
        self.place(picture["qpos"])
