"""The report of an evaluation: on disk after every episode, whatever ends the process.

`episodes.jsonl` has a line an episode, `summary.json` what follows from them, and `episode_<index>/` its pictures.
"""

import json
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from lerobot_vla_plugin.envs.episode import Episode
from lerobot_vla_plugin.twin.directory import lock_directory

EPISODES, SUMMARY = "episodes.jsonl", "summary.json"


class EpisodeReport:
    """A folder that one evaluation writes; a context manager, or to be closed.

    Args:
        directory: The folder, which is made where it does not exist.

    Attributes:
        directory: As given.
        episodes: What was added.

    Raises:
        FileExistsError: The folder has episodes of another evaluation.
        DirectoryInUseError: Another evaluation writes there now.
        OSError: The system has no locks (Windows).
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.episodes: list[Episode] = []
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = lock_directory(directory, "an evaluation", "--env.report_dir")
        try:
            _refuse_old_episodes(directory)
            (directory / EPISODES).touch()  # an evaluation even where it ends before its first episode does
        except OSError:
            self._lock.close()
            raise

    @property
    def next_index(self) -> int:
        """Index of the episode that is added next."""
        return len(self.episodes)

    def frames_folder(self, index: int) -> Path:
        """Where the pictures of an episode go.

        Args:
            index: Its index.
        """
        return self.directory / f"episode_{index}"

    def add(self, episode: Episode) -> None:
        """Write an episode; it is on the disk when this returns.

        Args:
            episode: The episode, with `next_index` as its index.

        Raises:
            ValueError: It has another index.
        """
        if episode.index != self.next_index:
            raise ValueError(f"expected episode {self.next_index}, got {episode.index}")
        with (self.directory / EPISODES).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(episode.to_json()) + "\n")
            lines.flush()
            os.fsync(lines.fileno())
        self.episodes.append(episode)
        draft = self.directory / f".{SUMMARY}"
        draft.write_text(json.dumps(summarize(self.episodes), indent=2) + "\n", encoding="utf-8")
        draft.replace(self.directory / SUMMARY)

    def close(self) -> None:
        """Let others have the folder."""
        # The lock's file stays: removing it would race with the next evaluation.
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_episodes(directory: Path) -> list[Episode]:
    """The episodes of a report; one that was cut off while it was written is left out.

    Args:
        directory: Folder of the report.

    Raises:
        FileNotFoundError: It holds no report.
        ValueError: A line is damaged.
    """
    path = directory / EPISODES
    if not path.is_file():
        raise FileNotFoundError(f"{directory} holds no {EPISODES}: it is not the --env.report_dir of an evaluation")
    try:
        *lines, _cut_off = path.read_text(encoding="utf-8").split("\n")
        return [_read_episode(index, line) for index, line in enumerate(lines)]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _read_episode(index: int, line: str) -> Episode:
    row = json.loads(line)
    if not isinstance(row, dict) or row.get("index") != index:
        raise ValueError(f"line {index + 1} is not episode {index}")
    return Episode.from_json(row)


def _refuse_old_episodes(directory: Path) -> None:
    old = directory / EPISODES
    if old.exists() and old.stat().st_size:
        raise FileExistsError(
            f"{directory} has the episodes of another evaluation; name a new folder: --env.report_dir=..."
        )


def summarize(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Figures of all episodes together, and of each task.

    Args:
        episodes: The episodes; those that do not count are only counted.
    """
    counting = [episode for episode in episodes if episode.ending.counts]
    tasks = sorted({episode.task for episode in counting})
    return {
        "overall": _figures(counting),
        "per_task": {task: _figures([e for e in counting if e.task == task]) for task in tasks},
        "not_counted": dict(Counter(str(e.ending) for e in episodes if not e.ending.counts)),
    }


def wilson_interval(successes: int, trials: int) -> tuple[float, float] | None:
    """Wilson's 95 % interval of a success rate; None without trials.

    Args:
        successes: How many trials succeeded.
        trials: How many there were.
    """
    from scipy.stats import binomtest

    if not trials:
        return None
    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _figures(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Figures of episodes that count."""
    won = [episode for episode in episodes if episode.success]
    interventions = sum((Counter(episode.interventions) for episode in episodes), Counter())
    return {
        "n": len(episodes),
        "successes": len(won),
        "success": len(won) / len(episodes) if episodes else None,
        "wilson_95": wilson_interval(len(won), len(episodes)),
        "median_time_to_success_s": _median([episode.seconds for episode in won]),
        "taken": _taken(episodes),
        "interventions": dict(interventions),
        "jerk_deg_s3": {
            name: _median([getattr(e.jerk, name) for e in episodes if e.jerk]) for name in ("commanded", "measured")
        },
        "control_rate": _rate(episodes),
    }


def _taken(episodes: Sequence[Episode]) -> dict[str, int]:
    """Of the episodes with a named color: how often that cube was taken, another, or none."""
    named = [episode for episode in episodes if episode.color is not None]
    what = {True: "named", False: "other"}
    return dict(Counter(what[e.taken == e.color] if e.taken is not None else "none" for e in named))


def _rate(episodes: Sequence[Episode]) -> dict[str, Any] | None:
    rates = [episode.control_rate for episode in episodes if episode.control_rate]
    if not rates:
        return None
    return {
        "median_hz": statistics.median(rate.median_hz for rate in rates),
        "p95_interval_s": statistics.median(rate.p95_interval_s for rate in rates),
        "longest_pause_s": max(rate.longest_pause_s for rate in rates),
        "late_steps": sum(rate.late_steps for rate in rates),
    }


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
