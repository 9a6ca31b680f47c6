"""Small evaluations on the disk, written as an environment writes them."""

import json
from pathlib import Path

import numpy as np
from test_episode_report import episode

from lerobot_vla_plugin.envs.episode import Ending
from lerobot_vla_plugin.envs.episode_frames import EpisodeFrames
from lerobot_vla_plugin.envs.episode_report import EPISODES, EpisodeReport
from lerobot_vla_plugin.envs.so101_twin import describe_layout
from lerobot_vla_plugin.twin.scenes import COLORS, draw_layout

FPS = 10
REAL_ARM = {"seed": None, "color": None, "taken": None, "layout": {}}
# A success, a failure, the other cube, an interrupted one.
ENDINGS = (
    (Ending.SUCCESS, "named"),
    (Ending.TIME, None),
    (Ending.FAILURE, "other"),
    (Ending.INTERRUPTED, None),
)


def write_evaluation(folder: Path, task: str = "pick-place", endings=ENDINGS, **changes) -> Path:
    """An evaluation of the twin's scenes, with two pictures of each camera; `changes` go to all episodes."""
    with EpisodeReport(folder) as report:
        for index, (ending, taken) in enumerate(endings):
            layout = draw_layout(task, seed=index)
            other = next(color for color in COLORS if color != layout.color)
            facts = {
                "task": task,
                "instruction": layout.instruction,
                "seed": index,
                "color": layout.color,
                "taken": {"named": layout.color, "other": other, None: None}[taken],
                "layout": describe_layout(layout),
            }
            write_pictures(report.frames_folder(index), brightness=40 * index)
            report.add(episode(index, ending, **{**facts, **changes}))
    return folder


def write_pictures(folder: Path, brightness: int) -> None:
    """Two pictures of each camera."""
    frames = EpisodeFrames(folder, FPS)
    for step in (0, 5):
        picture = np.full((24, 32, 3), brightness + step, np.uint8)
        frames.add(step, {"front": picture, "wrist": picture}, last=step == 5)


def change_row(folder: Path, index: int, /, **changes) -> None:
    """Write another value into a line of the report."""
    lines = (folder / EPISODES).read_text().splitlines()
    lines[index] = json.dumps({**json.loads(lines[index]), **changes})
    (folder / EPISODES).write_text("".join(f"{line}\n" for line in lines))
