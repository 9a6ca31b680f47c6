"""Which episodes of a data set a checkpoint was trained on, as its `train_config.json` tells."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from lerobot.configs.train import TRAIN_CONFIG_NAME
from lerobot.datasets import LeRobotDatasetMetadata

from .joint_dataset import find_dataset


class Standing(StrEnum):
    """How an episode stands to the training of a checkpoint."""

    HELD_OUT = "not trained on"
    TRAINED_ON = "TRAINED ON"
    UNKNOWN = "perhaps trained on"


@dataclass(frozen=True)
class TrainingEpisodes:
    """What is known about the episodes of one data set.

    Attributes:
        trained_on: What the checkpoint was trained on, for messages; None if it does not say.
        standings: Episode -> how it stands; episodes that are missing here are unknown.
    """

    trained_on: str | None = None
    standings: Mapping[int, Standing] = field(default_factory=dict)

    def standing(self, episode: int) -> Standing:
        """How an episode stands to the training.

        Args:
            episode: Its index.
        """
        return self.standings.get(episode, Standing.UNKNOWN)

    @property
    def held_out(self) -> list[int]:
        """Episodes that were kept from training."""
        return [episode for episode, standing in self.standings.items() if standing is Standing.HELD_OUT]


def read_training_episodes(checkpoint: Path, meta: LeRobotDatasetMetadata) -> TrainingEpisodes:
    """Find out which episodes of a data set a checkpoint has seen, itself or as the one that it started from.

    A run that was resumed with other episodes has seen more than its file tells.

    Args:
        checkpoint: Folder `pretrained_model`.
        meta: The data set's metadata.

    Raises:
        ValueError: `train_config.json` is damaged.
    """
    path = checkpoint / TRAIN_CONFIG_NAME
    if not path.is_file():
        return TrainingEpisodes()
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        dataset = config["dataset"]
        name = str(dataset["root"] or dataset["repo_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} tells no data set ({error!r}); was the copy cut short?") from error
    if not _is_same(dataset, meta.root):
        return TrainingEpisodes(name)
    seen = _seen(dataset, [tasks[0] if tasks else "" for tasks in meta.episodes["tasks"]])
    standings = {e: Standing.TRAINED_ON if e in seen else Standing.HELD_OUT for e in range(meta.total_episodes)}
    for base in _started_from(config):
        before = read_training_episodes(Path(base), meta)
        name += f", after {base}"
        standings = {e: _least_flattering(own, before.standing(e)) for e, own in standings.items()}
    return TrainingEpisodes(name, standings)


def _least_flattering(*standings: Standing) -> Standing:
    return max(standings, key=[Standing.HELD_OUT, Standing.UNKNOWN, Standing.TRAINED_ON].index)


def _started_from(config: Mapping[str, Any]) -> list[str]:
    """Checkpoints whose weights a run began with; its own, from which it was resumed, is none of them."""
    policy = config.get("policy") or {}
    own = Path(config.get("output_dir") or "").resolve()
    named = [policy.get("init_from")]
    if (path := policy.get("pretrained_path")) and not Path(path).resolve().is_relative_to(own):
        named.append(path)
    return [name for name in named if name]


def _is_same(dataset: Mapping[str, Any], root: Path) -> bool:
    try:
        trained = find_dataset(dataset["repo_id"], Path(dataset["root"]) if dataset["root"] else None)
    except FileNotFoundError:
        return False
    return trained.resolve() == root.resolve()


def _seen(dataset: Mapping[str, Any], tasks: Sequence[str]) -> set[int]:
    """Episodes of LeRobot's training: those chosen, without the last ones of each task if `eval_split` says so."""
    chosen = dataset.get("episodes")
    by_task: dict[str, list[int]] = {}
    for episode in range(len(tasks)) if chosen is None else chosen:
        by_task.setdefault(tasks[episode], []).append(episode)
    share = dataset.get("eval_split") or 0.0
    return {e for episodes in by_task.values() for e in episodes[: len(episodes) - math.ceil(len(episodes) * share)]}
