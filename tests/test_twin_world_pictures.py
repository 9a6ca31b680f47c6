"""What the cameras see of the world: cubes in their colors where they are, and a new light without a new renderer."""

import numpy as np
import pytest

pytest.importorskip("mujoco")

from lerobot_vla_plugin.twin.rendering import has_opengl, open_renderer
from lerobot_vla_plugin.twin.scenes import draw_layout
from lerobot_vla_plugin.twin.stage import CAMERAS
from lerobot_vla_plugin.twin.world import World

WIDTH, HEIGHT = 128, 96


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def opengl() -> str | None:
    return next((name for name in ("egl", "osmesa") if has_opengl(name)), None)


@pytest.fixture(scope="module", params=["drawing", "opengl"])
def renderer(request: pytest.FixtureRequest, world: World, opengl: str | None):
    if request.param == "opengl" and opengl is None:
        pytest.skip("this system has no OpenGL")
    renderer = open_renderer(world, WIDTH, HEIGHT, opengl if request.param == "opengl" else "drawing")
    yield renderer
    renderer.close()


def _pixels_of(image: np.ndarray, color: str) -> np.ndarray:
    channel = {"red": 0, "blue": 2}[color]
    others = [c for c in range(3) if c != channel]
    picture = image.astype(int)
    return np.argwhere((picture[..., channel] > 60) & (picture[..., channel] > 1.8 * picture[..., others].max(axis=2)))


def _projection(world: World, color: str) -> np.ndarray:
    """Row and column of a cube's centre in the front camera's picture."""
    pose = world.camera("front")
    x, y, z = (world.cube_m(color) - pose.position_m) @ pose.rotation
    focal_px = HEIGHT / 2 / np.tan(np.deg2rad(pose.fovy_deg) / 2)
    return np.array([HEIGHT / 2 - 0.5 - focal_px * y / -z, WIDTH / 2 - 0.5 + focal_px * x / -z])


def test_both_cubes_show_where_they_are_whatever_the_light(world: World, renderer) -> None:
    for seed in range(12):
        layout = draw_layout("pick-place", seed)
        world.reset(layout)
        picture = renderer.render("front")
        for color in layout.cubes:
            pixels = _pixels_of(picture, color)
            assert len(pixels) > 15, (seed, color)
            np.testing.assert_allclose(pixels.mean(axis=0), _projection(world, color), atol=2)


def test_another_scene_is_another_picture_from_the_same_renderer(world: World, renderer) -> None:
    pictures = []
    for seed in (1, 2, 1):
        world.reset(draw_layout("pick-lift", seed))
        pictures.append({camera: renderer.render(camera) for camera in CAMERAS})
    for camera in CAMERAS:
        np.testing.assert_array_equal(pictures[0][camera], pictures[2][camera])
        assert np.abs(pictures[0][camera].astype(int) - pictures[1][camera]).mean() > 2
    table = [picture["front"][-1].astype(int) for picture in pictures]  # nearest to the camera, where nothing stands
    assert np.abs(table[0] - table[1]).mean() > 3


def test_both_renderers_agree_and_neither_shows_the_contact_shapes(world: World, opengl: str | None) -> None:
    if opengl is None:
        pytest.skip("this system has no OpenGL")
    renderers = [open_renderer(world, WIDTH, HEIGHT, name) for name in (opengl, "drawing")]
    for seed in range(3):
        world.reset(draw_layout("pick-place", seed))
        for camera in CAMERAS:
            ours, theirs = (renderer.render(camera).astype(int) for renderer in renderers)
            assert (np.abs(ours - theirs).max(axis=2) < 60).mean() > 0.93, (seed, camera)
    for renderer in renderers:
        renderer.close()


def test_renderers_of_several_worlds_take_turns(opengl: str | None) -> None:
    if opengl is None:
        pytest.skip("this system has no OpenGL")
    sizes = ((64, 48), (96, 96))
    alone, in_turn = [], []
    for seed, size in enumerate(sizes):
        world = World()
        world.reset(draw_layout("pick-lift", seed))
        renderer = open_renderer(world, *size, opengl)
        alone.append(renderer.render("front"))
        in_turn.append(renderer)
    for renderer, expected in zip(in_turn, alone, strict=True):
        np.testing.assert_array_equal(renderer.render("front"), expected)
    in_turn[1].close()
    np.testing.assert_array_equal(in_turn[0].render("front"), alone[0])
    in_turn[0].close()
