"""Pictures of the scene with numpy and OpenCV only, for machines where MuJoCo finds no OpenGL."""

import cv2
import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.twin.stage import SKY_RGB, TABLE_HALF_M, CameraPose, Drawable

_NEAR_M = 0.01
_UNSEEN_GROUP = 3  # from here on MuJoCo's viewers hide geoms, too: shapes for contacts
_SUBPIXEL_BITS = 4
# OpenCV also fills the pixels that a triangle's edge touches, which thickens everything by half a pixel of the
# canvas; drawing on a finer one halves that, and smooths the edges.
_SUPERSAMPLING = 2
_BOX_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
# Two triangles a side, counter-clockwise seen from outside; corner index = 4 x + 2 y + z.
_BOX_FACES = np.array(
    [
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ]
)  # fmt: skip


class DrawingRenderer:
    """Draws the scene's triangles from far to near with flat shading.

    Args:
        scene: What to draw, in the pose that it has when `render` is called.
        width: Width of the pictures, in [px].
        height: Height of the pictures, in [px].
    """

    name = "drawing"

    def __init__(self, scene: Drawable, width: int, height: int) -> None:
        self._scene, self._size = scene, (width, height)
        self._width, self._height = _SUPERSAMPLING * width, _SUPERSAMPLING * height
        self._geoms, self._vertices, self._faces, self._geom_of_face = _collect_triangles(scene.model)

    def render(self, camera: str) -> NDArray[np.uint8]:
        """Draw what a camera sees.

        Args:
            camera: One of the scene's `CAMERAS`.

        Returns:
            RGB picture, shape (height, width, 3).
        """
        self._take_over_colors_and_light()
        pose = self._scene.camera(camera)
        focal_px = _focal_length(pose, self._height)
        canvas = cv2.resize(self._table_and_sky(pose), None, fx=_SUPERSAMPLING, fy=_SUPERSAMPLING)
        world = self._world_vertices()
        corners = ((world - pose.position_m) @ pose.rotation)[self._faces]  # (f, 3, 3) in camera axes
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        depth = -corners[:, :, 2]
        towards_eye = -np.einsum("fi,fi->f", normals, corners[:, 0])
        seen = np.flatnonzero((towards_eye > 0) & (depth.min(axis=1) > _NEAR_M))
        seen = seen[np.argsort(-depth[seen].mean(axis=1))]
        colors = self._shade(normals[seen], corners[seen, 0], pose.rotation) * self._rgb[seen]
        self._fill(canvas, corners[seen], colors, focal_px)
        return np.asarray(cv2.resize(canvas, self._size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def close(self) -> None:
        """Nothing to give back; here because OpenGL renderers have something."""

    def _take_over_colors_and_light(self) -> None:
        """As they are now: a new scene changes them in the model that is there."""
        model = self._scene.model
        light = model.light(0).id
        self._to_light = -model.light_dir[light]
        self._light = model.light_diffuse[light][0]
        headlight = model.vis.headlight
        self._ambient, self._headlight = headlight.ambient[0], headlight.diffuse[0]
        self._rgb = _geom_colors(model)[self._geom_of_face]
        self._table_rgb = model.geom("table").rgba[:3]

    def _world_vertices(self) -> NDArray[np.float64]:
        data = self._scene.data
        return np.concatenate(
            [
                vertices @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
                for geom, vertices in zip(self._geoms, self._vertices, strict=True)
            ]
        )

    def _shade(self, normals: NDArray, points: NDArray, rotation: NDArray) -> NDArray[np.float64]:
        """Brightness of triangles, shape (f, 1), with MuJoCo's light model without gloss."""
        normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
        to_eye = -points / np.linalg.norm(points, axis=1, keepdims=True)
        facing_eye = np.einsum("fi,fi->f", normals, to_eye).clip(0)
        facing_light = (normals @ (rotation.T @ self._to_light)).clip(0)
        return (self._ambient + self._headlight * facing_eye + self._light * facing_light)[:, None]

    def _fill(self, canvas: cv2.typing.MatLike, corners: NDArray, colors: NDArray, focal_px: float) -> None:
        centre = np.array([self._width, self._height]) / 2 - 0.5
        projected = corners[:, :, :2] / -corners[:, :, 2:] * (focal_px, -focal_px) + centre
        on_image = ((projected.max(axis=1) > -1) & (projected.min(axis=1) < (self._width, self._height))).all(axis=1)
        points = np.rint(projected[on_image] * (1 << _SUBPIXEL_BITS)).clip(-1e6, 1e6).astype(np.int32)
        rgb = np.rint(colors[on_image].clip(0, 1) * 255).tolist()
        for triangle, color in zip(points, rgb, strict=True):
            cv2.fillConvexPoly(canvas, triangle, color, shift=_SUBPIXEL_BITS)

    def _table_and_sky(self, pose: CameraPose) -> NDArray[np.uint8]:
        """The background, in the size of the picture: every pixel's ray meets the table or the sky."""
        width, height = self._size
        focal_px = _focal_length(pose, height)
        x = (np.arange(width) + 0.5 - width / 2) / focal_px
        y = -(np.arange(height) + 0.5 - height / 2) / focal_px
        rays = np.stack(np.broadcast_arrays(x[None, :], y[:, None], -1.0), axis=-1) @ pose.rotation.T
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = -pose.position_m[2] / rays[:, :, 2]
            hits = np.abs(pose.position_m[:2] + distance[:, :, None] * rays[:, :, :2]) < TABLE_HALF_M
        on_table = (distance > 0) & hits.all(axis=2)
        facing_eye = (-rays[:, :, 2] / np.linalg.norm(rays, axis=2)).clip(0)
        light = self._ambient + self._headlight * facing_eye + self._light * self._to_light[2]
        image = np.where(on_table[:, :, None], light[:, :, None] * self._table_rgb, SKY_RGB)
        return np.rint(image.clip(0, 1) * 255).astype(np.uint8)


def _focal_length(pose: CameraPose, height_px: int) -> float:
    """Focal length of a camera whose picture has that height, in [px]."""
    return height_px / 2 / np.tan(np.deg2rad(pose.fovy_deg) / 2)


def _geom_colors(model) -> NDArray[np.float64]:
    """Color of every geom, shape (geoms, 3): that of its material where it has one."""
    material = model.geom_matid
    of_material = model.mat_rgba[np.maximum(material, 0)] if model.nmat else model.geom_rgba
    return np.where(material[:, None] >= 0, of_material, model.geom_rgba)[:, :3].astype(np.float64)


def _collect_triangles(model) -> tuple[list[int], list[NDArray], NDArray[np.int64], NDArray[np.int64]]:
    """Geoms that are seen and have triangles, their vertices in geom axes, all faces, and the geom of each face."""
    import mujoco

    geoms, vertices, faces, geom_of_face = [], [], [], []
    for geom in np.flatnonzero(model.geom_group < _UNSEEN_GROUP).tolist():
        if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
            mesh = model.mesh(model.geom_dataid[geom])
            start, count = mesh.vertadr[0], mesh.vertnum[0]
            own_vertices = model.mesh_vert[start : start + count].astype(np.float64)
            own_faces = model.mesh_face[mesh.faceadr[0] : mesh.faceadr[0] + mesh.facenum[0]].astype(np.int64)
        elif model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX:
            own_vertices, own_faces = _BOX_CORNERS * model.geom_size[geom], _BOX_FACES
        else:
            continue
        faces.append(own_faces + sum(map(len, vertices)))
        geoms.append(geom)
        vertices.append(own_vertices)
        geom_of_face.append(np.full(len(own_faces), geom))
    return geoms, vertices, np.concatenate(faces), np.concatenate(geom_of_face)
