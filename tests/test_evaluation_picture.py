"""`lerobot-vla plot` of an evaluation: the map and the strips that were asked for, and what it refuses."""

import numpy as np
import pytest
from evaluations import ENDINGS, REAL_ARM, change_row, write_evaluation
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from lerobot_vla_cli.main import main
from lerobot_vla_plugin.evaluation_facts import choose_episodes, load_evaluations

RED, BLUE = ("tab:red", "tab:blue")


def plot(folder, *arguments: object) -> int:
    return main(["plot", str(folder), *map(str, arguments)])


def area_px(path, color) -> int:
    """Pixels of exactly that color: a name, or a gray level."""
    rgb = np.full(3, color / 255) if isinstance(color, int) else to_rgb(color)
    return int(np.all(np.abs(imread(path)[..., :3] - rgb) < 1e-3, axis=-1).sum())


def shown(path) -> list[int]:
    """Episodes whose pictures are in the picture; each has a gray level of its own."""
    return [index for index in range(len(ENDINGS)) if area_px(path, 40 * index + 5) > 5000]


def test_a_map_and_a_few_failures(tmp_path, capsys):
    folder, picture = write_evaluation(tmp_path / "ours"), tmp_path / "a.png"
    assert plot(folder, "--output", picture) == 0
    out = capsys.readouterr().out
    for words in ("ours: 1 of 3, 33% (6% to 79%)", "Episode 2: took the", "Episode 1: time limit", str(picture)):
        assert words in out
    assert shown(picture) == [1, 2]
    assert min(area_px(picture, color) for color in (RED, BLUE)) > 50


def test_the_episodes_that_were_asked_for(tmp_path):
    folder, picture = write_evaluation(tmp_path / "ours"), tmp_path / "a.png"
    assert plot(folder, "--episode", 3, 0, "--output", picture) == 0
    assert shown(picture) == [0, 3]


def test_the_first_episode_where_none_failed(tmp_path):
    (evaluation,) = load_evaluations([write_evaluation(tmp_path, endings=ENDINGS[:1] * 2)])
    assert [episode.index for episode in choose_episodes(evaluation, None)] == [0]


def test_a_real_arm_has_strips_only(tmp_path):
    folder, picture = write_evaluation(tmp_path / "real", instruction="a $ b_c^ " * 50, **REAL_ARM), tmp_path / "a.png"
    assert plot(folder, "--episode=1", "--output", picture) == 0
    assert shown(picture) == [1]
    assert area_px(picture, RED) == area_px(picture, BLUE) == 0


def test_an_episode_without_pictures(tmp_path):
    folder, picture = write_evaluation(tmp_path / "bare", frames=None), tmp_path / "a.png"
    assert plot(folder, "--output", picture) == 0
    assert shown(picture) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["me/cube"], "is an evaluation, which is drawn without dataset; predictions on a data set need a checkpoint"),
        (["--frames=5", "--root=somewhere"], "is drawn without root, frames"),
        (["--episode", 0, 4, -1], "no episode [4, -1] in"),
        (["--output=a.jpg"], "expected a file name that ends with .png"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, capsys, arguments, message):
    folder = write_evaluation(tmp_path / "ours")
    assert plot(folder, *arguments) == 2
    assert message in capsys.readouterr().err


def test_no_evaluation_and_none_that_could_be_drawn(tmp_path, capsys):
    assert plot(tmp_path) == 2
    assert "is no evaluation, for it holds no episodes.jsonl; a checkpoint needs a data set" in capsys.readouterr().err
    assert plot(write_evaluation(tmp_path / "none", endings=())) == 2
    assert "has no episodes yet" in capsys.readouterr().err
    damaged = write_evaluation(tmp_path / "damaged")
    picture = damaged / "episode_1" / "front_00005.jpg"
    picture.write_bytes(picture.read_bytes()[:200])
    assert plot(damaged, f"--output={tmp_path / 'a.png'}") == 2
    assert f"{picture} is damaged" in capsys.readouterr().err
    change_row(damaged, 0, layout={"cubes": 5})
    assert plot(damaged, f"--output={tmp_path / 'a.png'}") == 2
    assert "a layout lacks a place" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()
