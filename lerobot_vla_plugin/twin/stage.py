"""What surrounds every arm of the twin: table, sky, light, and the two cameras."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

CAMERAS = ("front", "wrist")
TABLE_HALF_M = 0.6
SKY_RGB = (0.75, 0.82, 0.88)
TABLE_RGB = (0.42, 0.46, 0.44)


@dataclass(frozen=True, slots=True)
class CameraPose:
    """A pinhole camera in the world.

    Attributes:
        position_m: Centre, shape (3,), in [m].
        rotation: Columns right, up and backward in world axes, shape (3, 3).
        fovy_deg: Vertical field of view, in [deg].
    """

    position_m: NDArray[np.float64]
    rotation: NDArray[np.float64]
    fovy_deg: float


@dataclass(frozen=True, slots=True)
class View:
    """How a camera looks at the table.

    Attributes:
        eye_m: Its place, in [m].
        target_m: The middle of its picture, in [m].
        fovy_deg: Vertical field of view, in [deg].
    """

    eye_m: tuple[float, float, float]
    target_m: tuple[float, float, float]
    fovy_deg: float


class Drawable(Protocol):
    """What a renderer needs of a scene."""

    model: Any
    data: Any

    def camera(self, name: str) -> CameraPose:
        """Where a camera is now."""
        ...


def furnish(spec, front: View, wrist: View) -> None:
    """Add the table, the light and the cameras.

    Args:
        spec: Spec of the arm; changed.
        front: How the camera in front of the arm looks.
        wrist: How that on its gripper looks, in the gripper's axes; the side on which it sits is up in its picture.
    """
    import mujoco

    world = spec.worldbody
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[TABLE_HALF_M, TABLE_HALF_M, 0.01],
        rgba=[*TABLE_RGB, 1],
    )
    world.add_light(
        pos=[0.3, -0.3, 1.5],
        dir=[0, 0.2, -1],
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        castshadow=False,
        diffuse=[0.45, 0.45, 0.45],
        specular=[0, 0, 0],
    )
    _add_camera(world, "front", front, up=(0, 0, 1))
    _add_camera(spec.body("gripper"), "wrist", wrist, up=(0, float(np.sign(wrist.eye_m[1])), 0))
    _set_picture_quality(spec)


def camera_pose(model, data, name: str) -> CameraPose:
    """Where a camera is in MuJoCo's present state.

    Args:
        model: MuJoCo's model.
        data: Its state.
        name: One of `CAMERAS`.

    Raises:
        KeyError: There is no such camera; the message lists those there are.
    """
    if name not in CAMERAS:
        raise KeyError(f"no camera {name!r}; there are {CAMERAS}")
    index = model.camera(name).id
    rotation = data.cam_xmat[index].reshape(3, 3).copy()
    return CameraPose(data.cam_xpos[index].copy(), rotation, float(model.cam_fovy[index]))


def _set_picture_quality(spec) -> None:
    import mujoco

    spec.visual.quality.shadowsize = 0
    spec.visual.quality.offsamples = 0
    spec.visual.headlight.ambient = [0.4, 0.4, 0.4]
    spec.visual.headlight.diffuse = [0.15, 0.15, 0.15]
    spec.visual.headlight.specular = [0, 0, 0]
    spec.visual.map.znear = 0.005
    sky = spec.add_texture(
        name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT
    )
    sky.rgb1, sky.rgb2, sky.width, sky.height = SKY_RGB, SKY_RGB, 8, 8


def _add_camera(body, name: str, view: View, *, up: tuple[float, float, float]) -> None:
    import mujoco

    backward = np.subtract(view.eye_m, view.target_m) / np.linalg.norm(np.subtract(view.eye_m, view.target_m))
    right = np.cross(up, backward)
    right /= np.linalg.norm(right)
    camera = body.add_camera(name=name, pos=view.eye_m, fovy=view.fovy_deg)
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = [*right, *np.cross(backward, right)]
