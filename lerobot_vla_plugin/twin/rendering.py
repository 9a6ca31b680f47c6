"""Pictures of the scene: MuJoCo's OpenGL renderer where the system has one, else our own drawing."""

import atexit
import importlib
import logging
import os
import subprocess
import sys
import threading
from functools import cache
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.twin.stage import Drawable

RendererName = Literal["auto", "egl", "osmesa", "drawing"]
RENDERERS: tuple[str, ...] = get_args(RendererName)
_PROBE_TIMEOUT_S = 30

logger = logging.getLogger(__name__)


class Renderer(Protocol):
    """What draws pictures of a scene."""

    name: str

    def render(self, camera: str) -> NDArray[np.uint8]:
        """RGB picture of what a camera sees, shape (height, width, 3)."""
        ...

    def close(self) -> None:
        """Give back what the system lent."""
        ...


def open_renderer(scene: Drawable, width: int, height: int, renderer: RendererName = "auto") -> Renderer:
    """Make a renderer, and log which one it is.

    Args:
        scene: What to draw.
        width: Width of the pictures, in [px].
        height: Height of the pictures, in [px].
        renderer: One of `RENDERERS`; "auto" takes EGL, then OSMesa, then the drawing.

    Raises:
        ValueError: There is no renderer of that name.
        RuntimeError: That renderer was asked for and this system does not have it.
    """
    if renderer not in RENDERERS:
        raise ValueError(f"no renderer {renderer!r}; there are {RENDERERS}")
    candidates = ("egl", "osmesa", "drawing") if renderer == "auto" else (renderer,)
    for name in candidates:
        if name == "drawing":
            from lerobot_vla_plugin.twin.drawing import DrawingRenderer

            logger.info("pictures are drawn with OpenCV, without OpenGL")
            return DrawingRenderer(scene, width, height)
        if has_opengl(name):
            logger.info("pictures are rendered by MuJoCo with %s", name)
            return OpenGLRenderer(scene, width, height, name)
    raise RuntimeError(f"MuJoCo cannot use {renderer!r} on this system; take renderer='drawing' or 'auto'")


@cache
def has_opengl(backend: str) -> bool:
    """Whether MuJoCo can render with a backend here.

    Tried in a process of its own: an import of OpenGL that failed stays broken in the process that tried it.

    Args:
        backend: "egl" or "osmesa".
    """
    code = f"from mujoco.{backend} import GLContext; GLContext(8, 8).make_current()"
    environment = os.environ | {"MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    try:
        probe = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, timeout=_PROBE_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return False
    return probe.returncode == 0


class OpenGLRenderer:
    """MuJoCo's renderer in an offscreen OpenGL context.

    A process can use one backend only, and one thread a renderer.

    Args:
        scene: What to draw, in the pose that it has when `render` is called.
        width: Width of the pictures, in [px].
        height: Height of the pictures, in [px].
        backend: "egl" or "osmesa".
    """

    def __init__(self, scene: Drawable, width: int, height: int, backend: str) -> None:
        import mujoco

        self.name = backend
        self._mujoco, self._scene = mujoco, scene
        scene.model.vis.global_.offwidth, scene.model.vis.global_.offheight = width, height
        self._context = _opengl_context(backend, threading.get_ident())
        self._context.make_current()
        self._drawer = mujoco.MjrContext(scene.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        self._visible = mujoco.MjvScene(scene.model, maxgeom=100)
        self._visible.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._visible.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._viewport = mujoco.MjrRect(0, 0, width, height)
        self._upside_down = np.empty((height, width, 3), dtype=np.uint8)

    def render(self, camera: str) -> NDArray[np.uint8]:
        """Render what a camera sees.

        Args:
            camera: One of the scene's `CAMERAS`.

        Returns:
            RGB picture, shape (height, width, 3).
        """
        mujoco, scene = self._mujoco, self._scene
        self._camera.fixedcamid = scene.model.camera(camera).id
        self._context.make_current()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawer)
        mujoco.mjv_updateScene(
            scene.model,
            scene.data,
            self._option,
            None,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._visible,
        )
        mujoco.mjr_render(self._viewport, self._visible, self._drawer)
        mujoco.mjr_readPixels(self._upside_down, None, self._viewport, self._drawer)
        return self._upside_down[::-1].copy()

    def close(self) -> None:
        """Free what was uploaded to OpenGL."""
        self._context.make_current()
        self._drawer.free()


@cache
def _opengl_context(backend: str, thread: int):
    """The OpenGL context of a thread: a new one costs 0.4 s, and what is uploaded into it 0.02 s.

    Args:
        backend: "egl" or "osmesa".
        thread: The thread that asks.
    """
    context = importlib.import_module(f"mujoco.{backend}").GLContext(8, 8)  # MuJoCo draws into buffers of its own
    atexit.register(context.free)
    return context
