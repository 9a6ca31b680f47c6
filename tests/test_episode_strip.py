"""The picture strip of an episode: a row a camera, from its first moment to its last."""

import numpy as np
import pytest
from PIL import Image

from lerobot_vla_plugin.envs.episode_frames import EpisodeFrames
from lerobot_vla_plugin.envs.episode_strip import write_strip


def gray(value: int) -> np.ndarray:
    return np.full((10, 16, 3), value, np.uint8)


def test_a_strip_begins_and_ends_with_the_episode(tmp_path):
    frames = EpisodeFrames(tmp_path / "episode_0", fps=2)
    for step in range(11):
        frames.add(step, {"front": gray(20 * step), "wrist": gray(255 - 20 * step)})
    write_strip(tmp_path / "episode_0", tmp_path / "new" / "strip.png", columns=3)
    strip = np.asarray(Image.open(tmp_path / "new" / "strip.png")).astype(int)
    assert strip.shape == (10 + 2 + 10, 16 + 2 + 16 + 2 + 16, 3)
    brightness = [[strip[y, x, 0] for x in (8, 26, 44)] for y in (5, 17)]
    np.testing.assert_allclose(brightness, [[0, 100, 200], [255, 155, 55]], atol=2)


def test_a_folder_without_pictures_is_said_to_be_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no pictures of an episode"):
        write_strip(tmp_path, tmp_path / "strip.png")
