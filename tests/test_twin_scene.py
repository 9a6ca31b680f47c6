"""The scene: what moves in the world moves in the pictures, alike in both renderers."""

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("mujoco")

from lerobot_vla_plugin.twin.mesh_thinning import cluster_vertices
from lerobot_vla_plugin.twin.operator import (
    TASK,
    TIMEOUT_S,
    TOUCH_DWELL_S,
    Operator,
    TouchTask,
    minimum_jerk,
    solve_reach_postures,
)
from lerobot_vla_plugin.twin.rendering import Renderer, has_opengl, open_renderer
from lerobot_vla_plugin.twin.scene import CAMERAS, CUBE_HALF_M, Scene

WIDTH, HEIGHT = 128, 96
POSTURE = [15.0, -10.0, 30.0, 50.0, 0.0, 30.0]
FAR_AWAY = [0.0, 0.0, -5.0]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="module")
def opengl() -> str | None:
    return next((name for name in ("egl", "osmesa") if has_opengl(name)), None)


@pytest.fixture(scope="module", params=["drawing", "opengl"])
def renderer(request: pytest.FixtureRequest, scene: Scene, opengl: str | None):
    if request.param == "opengl" and opengl is None:
        pytest.skip("this system has no OpenGL")
    renderer = open_renderer(scene, WIDTH, HEIGHT, opengl if request.param == "opengl" else "drawing")
    yield renderer
    renderer.close()


def _red(image: np.ndarray) -> np.ndarray:
    red, green, blue = (image[..., channel].astype(int) for channel in range(3))
    return (red > 90) & (red > 2 * green) & (red > 2 * blue)


def _cube_pixel(scene: Scene, renderer: Renderer, cube_m: list[float]) -> np.ndarray:
    scene.place(POSTURE, cube_m)
    mask = _red(renderer.render("front"))
    assert mask.sum() > 30
    return np.argwhere(mask).mean(axis=0)[::-1]


def test_cube_shows_where_the_camera_projects_it(scene: Scene, renderer: Renderer) -> None:
    for cube_m in ([0.25, 0.12, CUBE_HALF_M], [0.3, -0.1, CUBE_HALF_M], [0.22, 0.0, CUBE_HALF_M]):
        pose = scene.camera("front")
        x, y, z = (np.array(cube_m) - pose.position_m) @ pose.rotation
        focal_px = HEIGHT / 2 / np.tan(np.deg2rad(pose.fovy_deg) / 2)
        expected = np.array([WIDTH / 2 - 0.5 + focal_px * x / -z, HEIGHT / 2 - 0.5 - focal_px * y / -z])
        np.testing.assert_allclose(_cube_pixel(scene, renderer, cube_m), expected, atol=1.5)


def test_a_joint_moves_the_silhouette_and_every_joint_changes_a_picture(scene: Scene, renderer: Renderer) -> None:
    scene.place(POSTURE, FAR_AWAY)
    before = {name: renderer.render(name).astype(int) for name in CAMERAS}
    assert all(image.shape == (HEIGHT, WIDTH, 3) for image in before.values())
    for joint in range(6):
        moved = list(POSTURE)
        moved[joint] += 20
        scene.place(moved, FAR_AWAY)
        changes = [np.abs(renderer.render(name) - before[name]).max(axis=2) > 40 for name in CAMERAS]
        assert max(change.sum() for change in changes) > 30, joint


def test_the_same_pose_gives_the_same_picture(scene: Scene, renderer: Renderer) -> None:
    scene.place(POSTURE, [0.25, 0.1, CUBE_HALF_M])
    first = renderer.render("wrist")
    scene.place([0.0] * 6, FAR_AWAY)
    renderer.render("front")
    scene.place(POSTURE, [0.25, 0.1, CUBE_HALF_M])
    np.testing.assert_array_equal(renderer.render("wrist"), first)


def test_both_renderers_show_the_same_scene(scene: Scene, opengl: str | None) -> None:
    if opengl is None:
        pytest.skip("this system has no OpenGL")
    renderers = [open_renderer(scene, WIDTH, HEIGHT, name) for name in (opengl, "drawing")]
    for posture in (POSTURE, [-30.0, 20.0, -10.0, 50.0, 40.0, 80.0]):
        scene.place(posture, [0.25, 0.1, CUBE_HALF_M])
        for camera in CAMERAS:
            ours, theirs = (renderer.render(camera).astype(int) for renderer in renderers)
            assert (np.abs(ours - theirs).max(axis=2) < 60).mean() > 0.93, (posture, camera)
        arms = [_arm_mask(renderer.render("front")) for renderer in renderers]
        assert (arms[0] & arms[1]).sum() / (arms[0] | arms[1]).sum() > 0.7
    for renderer in renderers:
        renderer.close()


def _arm_mask(image: np.ndarray) -> np.ndarray:
    """Printed parts (bright) and servos (dark) against the table, where there is no sky."""
    return (np.abs(image.astype(int).mean(axis=2) - 105) > 40) & (image[..., 2] < image[..., 0] + 10)


def test_the_arm_without_meshes_has_the_same_kinematics(scene: Scene) -> None:
    bare = Scene(visual=False)
    for each in (scene, bare):
        each.place(POSTURE, FAR_AWAY)
    np.testing.assert_allclose(bare.tip_m, scene.tip_m, atol=1e-9)


@pytest.mark.parametrize("joints", [[0.0] * 5, [np.nan] * 6])
def test_postures_that_are_none_are_refused(scene: Scene, joints: list[float]) -> None:
    with pytest.raises(ValueError, match="6 finite joints"):
        scene.place(joints)


def test_unknown_names_list_those_there_are(scene: Scene) -> None:
    with pytest.raises(KeyError, match="wrist"):
        scene.camera("side")
    with pytest.raises(ValueError, match="osmesa"):
        open_renderer(scene, 8, 8, "vulkan")  # type: ignore[arg-type]


def test_clustering_keeps_a_coarse_shape_and_drops_what_has_no_area() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 1, (500, 1, 3))
    tiny = np.tile(corners, (1, 3, 1)) + rng.uniform(0, 1e-9, (500, 3, 3))
    assert len(cluster_vertices(tiny, 0.5)[1]) == 0
    large = rng.uniform(0, 1, (500, 3, 3))
    vertices, faces = cluster_vertices(large, 1e-6)
    assert len(faces) == 500
    originals = {tuple(sorted(map(tuple, triangle.round(9)))) for triangle in large}
    assert {tuple(sorted(map(tuple, vertices[face].round(9)))) for face in faces} == originals


# The person and the task ------------------------------------------------------------------------------------


def test_every_reach_posture_holds_the_tip_at_one_height() -> None:
    bare = Scene(visual=False)
    reaches_m, postures = solve_reach_postures(bare)
    for reach_m, posture in zip(reaches_m, postures, strict=True):
        bare.place([0.0, *posture, 0.0, 0.0])
        assert bare.tip_m[[0, 2]] == pytest.approx([reach_m, 2 * CUBE_HALF_M + 0.003], abs=1e-5)


def _run(seed: int, seconds: float) -> tuple[list[np.ndarray], list[np.ndarray], TouchTask]:
    scene = Scene(visual=False)
    task, person = TouchTask(scene, seed, 0.0), Operator(0.0)
    cubes, postures = [task.cube_m], []
    for step in range(round(seconds * 100)):
        postures.append(person.joints(step / 100, task.goal_joints))
        scene.place(postures[-1])
        if task.update(step / 100, scene.tip_m):
            cubes.append(task.cube_m)
    return cubes, postures, task


def test_the_person_touches_cube_after_cube_at_human_speed() -> None:
    cubes, postures, task = _run(seed=1, seconds=60)
    assert task.timeouts == 0
    assert 30 < task.touches < 90
    speeds = np.abs(np.diff(postures, axis=0)) * 100
    assert speeds.max() < 120
    assert min(np.linalg.norm(a - b) for a, b in pairwise(cubes)) > 0.05
    assert TASK.endswith(".")


def test_a_seed_decides_the_cubes_and_nothing_else_does() -> None:
    cubes, _, _ = _run(seed=2, seconds=10)
    again, _, _ = _run(seed=2, seconds=5)
    np.testing.assert_array_equal(again, cubes[: len(again)])
    other, _, _ = _run(seed=3, seconds=5)
    assert not np.allclose(other[0], cubes[0])


def test_every_cube_is_seen_by_the_front_camera(scene: Scene) -> None:
    renderer = open_renderer(scene, WIDTH, HEIGHT, "drawing")
    task = TouchTask(Scene(visual=False), 4, 0.0)
    for number in range(30):
        scene.place(POSTURE, task.cube_m)
        rows, columns = np.nonzero(_red(renderer.render("front")))
        assert len(rows) > 25, task.cube_m
        assert np.ptp(columns) >= 3
        task.update((number + 1) * TIMEOUT_S, [0.0, 0.0, 1.0])
    assert task.timeouts == 30


def test_a_touch_must_last() -> None:
    bare = Scene(visual=False)
    task = TouchTask(bare, 5, 0.0)
    bare.place(task.goal_joints)
    touching, away = bare.tip_m, bare.tip_m + 0.1
    assert not task.update(0.1, touching)
    assert not task.update(0.2, away)
    assert not task.update(0.3, touching)
    assert not task.update(0.3 + TOUCH_DWELL_S - 0.01, touching)
    assert task.update(0.3 + TOUCH_DWELL_S, touching)
    assert (task.touches, task.timeouts) == (1, 0)


def test_minimum_jerk_starts_and_ends_at_rest() -> None:
    assert [minimum_jerk(t) for t in (-1, 0, 0.5, 1, 2)] == [0, 0, 0.5, 1, 1]
    assert minimum_jerk(1e-3) < 1e-7
    assert 1 - minimum_jerk(1 - 1e-3) < 1e-7
