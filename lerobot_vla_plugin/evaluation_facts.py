"""An evaluation as its folder tells it: what became of each episode, and the pictures of it.

Everything that is read here may come from somebody else: nothing outside the folder is opened.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from .envs.episode import Episode
from .envs.episode_report import EPISODES, read_episodes, summarize
from .open_loop_result import spread

_FEW = 3
_PICTURE = re.compile(r"(?P<camera>.+)_(?P<step>\d+)\.jpg")


class Outcome(StrEnum):
    """What became of an episode, what needs a look first."""

    OTHER_CUBE = "other cube taken"
    FAILURE = "failure"
    NOT_COUNTED = "not counted"
    SUCCESS = "success"


FAILURES = (Outcome.OTHER_CUBE, Outcome.FAILURE)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of an episode.

    Attributes:
        path: The JPEG file.
        time_s: When in the episode, in [s].
    """

    path: Path
    time_s: float


@dataclass(frozen=True)
class Evaluation:
    """One evaluation.

    Attributes:
        name: What tells it from the others.
        directory: Its folder.
        episodes: In the order in which they were run.
        cut_off: Whether the last line was cut off, as by a power cut; that episode is lost.
    """

    name: str
    directory: Path
    episodes: Sequence[Episode]
    cut_off: bool

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Figures, as in `summary.json`."""
        return summarize(self.episodes)

    @property
    def tasks(self) -> list[str]:
        """Kinds of scenes, in the order in which they came."""
        return list(dict.fromkeys(episode.task for episode in self.episodes))

    @property
    def failures_first(self) -> list[Episode]:
        """The episodes by outcome, then by number."""
        order = list(Outcome)
        return sorted(self.episodes, key=lambda episode: (order.index(outcome(episode)), episode.index))

    def pictures(self, episode: Episode, at_most: int | None = None) -> dict[str, list[Picture]]:
        """Camera -> its pictures of an episode, by time; the first and the last are among them.

        Args:
            episode: The episode.
            at_most: How many of each camera; None for all.

        Raises:
            ValueError: The report names a folder outside of itself.
        """
        if episode.frames is None:
            return {}
        folder = self.directory / episode.frames
        if not folder.resolve().is_relative_to(self.directory.resolve()):
            raise ValueError(f"{self.directory / EPISODES} is damaged: its pictures lie in {folder}, outside of it")
        return {camera: _thin_out(found, at_most) for camera, found in _find_pictures(folder, episode).items()}


def load_evaluations(directories: Sequence[Path]) -> list[Evaluation]:
    """Read evaluations.

    Args:
        directories: Their folders: `--env.report_dir` of `lerobot-eval`.

    Raises:
        FileNotFoundError: A folder holds no evaluation.
        ValueError: A report is damaged, or a folder is named twice.
    """
    folders = [directory.resolve() for directory in directories]
    if len(set(folders)) < len(folders):
        raise ValueError(f"each evaluation is to be named once, got {', '.join(map(str, directories))}")
    return [
        Evaluation(name, directory, read_episodes(directory), _is_cut_off(directory))
        for name, directory in zip(_names(folders), directories, strict=True)
    ]


def is_evaluation(directory: Path) -> bool:
    """Whether a folder is an `--env.report_dir`.

    Args:
        directory: The folder.
    """
    return (directory / EPISODES).is_file()


def choose_episodes(evaluation: Evaluation, numbers: Sequence[int] | None) -> list[Episode]:
    """Episodes to look at.

    Args:
        evaluation: The evaluation.
        numbers: Which; None chooses a few failures, or the first episode where none failed.

    Raises:
        ValueError: There is no such episode, or none at all.
    """
    if not evaluation.episodes:
        raise ValueError(f"{evaluation.directory} has no episodes yet")
    if numbers is None:
        failed = [episode for episode in evaluation.failures_first if outcome(episode) in FAILURES]
        return failed[:_FEW] or list(evaluation.episodes[:1])
    unknown = [number for number in numbers if number not in range(len(evaluation.episodes))]
    if unknown:
        last = len(evaluation.episodes) - 1
        raise ValueError(f"no episode {unknown} in {evaluation.directory}, which has episodes 0..{last}")
    return [evaluation.episodes[number] for number in numbers]


def outcome(episode: Episode) -> Outcome:
    """What became of an episode.

    Args:
        episode: The episode.
    """
    if not episode.ending.counts:
        return Outcome.NOT_COUNTED
    if episode.success:
        return Outcome.SUCCESS
    took_other = episode.color is not None and episode.taken not in (None, episode.color)
    return Outcome.OTHER_CUBE if took_other else Outcome.FAILURE


def describe_outcome(episode: Episode) -> str:
    """What became of an episode, in a few words.

    Args:
        episode: The episode.
    """
    took_other = outcome(episode) is Outcome.OTHER_CUBE
    what = f"took the {episode.taken} cube, not the {episode.color} one," if took_other else episode.ending
    return f"{what} after {episode.seconds:.1f} s"


def _names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as it takes to tell them apart."""
    for parts in range(1, max(len(folder.parts) for folder in folders)):
        names = ["/".join(folder.parts[-parts:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return list(map(str, folders))


def _is_cut_off(directory: Path) -> bool:
    lines = (directory / EPISODES).read_bytes()
    return bool(lines) and not lines.endswith(b"\n")


def _find_pictures(folder: Path, episode: Episode) -> dict[str, list[Picture]]:
    period_s = episode.seconds / episode.steps if episode.steps else 0.0
    found: dict[str, list[Picture]] = {}
    if folder.is_dir():
        named = [(match, path) for path in folder.iterdir() if (match := _PICTURE.fullmatch(path.name))]
        for match, path in sorted(named, key=lambda pair: (pair[0]["camera"], int(pair[0]["step"]))):
            found.setdefault(match["camera"], []).append(Picture(path, int(match["step"]) * period_s))
    return found


def _thin_out(pictures: list[Picture], at_most: int | None) -> list[Picture]:
    return [pictures[index] for index in spread(len(pictures), at_most)]
