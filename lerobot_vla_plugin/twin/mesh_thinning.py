"""Coarse copies of the arm's meshes: software renderers draw its 323,000 triangles at 2 pictures a second."""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_CLUSTER_M = 0.008  # a pixel of a 128x96 picture covers about 5 mm of the arm


def thin_out(mesh, folder: Path) -> None:
    """Replace a mesh file by a coarse copy in memory.

    Args:
        mesh: A mesh of a MuJoCo spec; changed.
        folder: Where its file lies.
    """
    import mujoco

    vertices, faces = _thinned(folder / mesh.file)
    mesh.file = ""
    mesh.uservert, mesh.userface = vertices.ravel(), faces.ravel()
    # A thinned mesh may enclose no volume, so only the inertia of its shell can be computed.
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL


@cache
def _thinned(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The coarse copy of one file; kept, because every scene of a process shows the same arm."""
    return cluster_vertices(_read_stl(path), _CLUSTER_M)


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
    cells = np.floor(corners / cell).astype(np.int64)
    _, cluster, counts = np.unique(_row_keys(cells), return_inverse=True, return_counts=True)
    sums = [np.bincount(cluster, weights=corners[:, axis]) for axis in range(3)]
    faces = cluster.reshape(-1, 3)
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    # Many triangles fall onto the same three clusters: rotate each to start with its lowest, keep one.
    first = np.argmin(faces, axis=1)
    rolled = np.take_along_axis(faces, (np.arange(3) + first[:, None]) % 3, axis=1)
    _, kept = np.unique(_row_keys(rolled), return_index=True)
    return np.stack(sums, axis=1) / counts[:, None], rolled[kept]


def _row_keys(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number a row of three that sorts like the row: numpy sorts numbers ten times as fast as rows."""
    if len(rows) == 0:
        return np.zeros(0, dtype=np.int64)
    rows = rows - rows.min(axis=0)
    x, y, z = rows.T
    size = rows.max(axis=0) + 1
    if float(size[0]) * float(size[1]) * float(size[2]) >= 2**63:
        raise ValueError(f"expected a mesh of fewer than 2^63 grid cells, got {size} cells; take larger ones")
    return (x * size[1] + y) * size[2] + z
