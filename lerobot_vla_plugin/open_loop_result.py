"""What the open-loop check found: predicted beside recorded chunks, and their errors.

Shapes: n frames looked at, c steps of a chunk, j joints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .arm_units import DEG
from .training_episodes import Standing

POLICY = "policy"
HOLD_STILL = "hold still"
MEAN_ACTION = "mean action"
SHUFFLED_IMAGES = "shuffled images"
TOKENIZER = "tokenizer alone"

# Below this ratio of errors, shuffled images do no harm worth the name: the policy works from its joints alone.
_CLEARLY_WORSE = 1.1


@dataclass(frozen=True)
class EpisodeChunks:
    """Chunks of one episode, in the units of the result.

    Attributes:
        episode: Its index.
        standing: Whether the checkpoint was trained on it.
        frames: Index of each frame looked at, counted from the start of the episode, (n,).
        actions: Recorded action of every frame of the episode, (frames, j).
        inside: Whether the step lies inside the episode, (n, c).
        recorded: Recorded actions of the same steps, (n, c, j).
        predicted: Predictor -> its chunks, (n, c, j).
        token_counts: Of a policy that speaks in tokens: predictor -> tokens of each of its chunks, (n,).
    """

    episode: int
    standing: Standing
    frames: NDArray[np.int64]
    actions: NDArray[np.float64]
    inside: NDArray[np.bool_]
    recorded: NDArray[np.float64]
    predicted: Mapping[str, NDArray[np.float64]]
    token_counts: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def absolute_errors(self, predictor: str) -> NDArray[np.float64]:
        """Distance from what was recorded, (n, c, j); NaN outside the episode.

        Args:
            predictor: A key of `predicted`.
        """
        errors = np.abs(self.predicted[predictor] - self.recorded)
        return np.where(self.inside[..., None], errors, np.nan)


@dataclass(frozen=True)
class OpenLoopResult:
    """Chunks of some episodes of a data set, and what errors they have together.

    Attributes:
        dataset_frames: Frames of the whole data set.
        dataset_episodes: Its episodes.
        fps_hz: Rate of the data set.
        joints: Names, (j).
        units: Unit of each joint.
        steps: Step of each action of a chunk, counted from its frame, (c,).
        episodes: The episodes looked at; at least one.
    """

    dataset_frames: int
    dataset_episodes: int
    fps_hz: float
    joints: Sequence[str]
    units: Sequence[str]
    steps: NDArray[np.int64]
    episodes: Sequence[EpisodeChunks]

    @property
    def predictors(self) -> list[str]:
        """Names of what predicted, the policy first."""
        return list(self.episodes[0].predicted)

    @cached_property
    def absolute_errors(self) -> Mapping[str, NDArray[np.float64]]:
        """Predictor -> errors over the frames of all episodes, (frames, c, j); NaN outside an episode."""
        return {
            name: np.concatenate([episode.absolute_errors(name) for episode in self.episodes])
            for name in self.predictors
        }

    @cached_property
    def errors(self) -> Mapping[str, NDArray[np.float64]]:
        """Predictor -> mean absolute error, (j,)."""
        return {name: np.nanmean(errors, axis=(0, 1)) for name, errors in self.absolute_errors.items()}

    @property
    def percentile_99(self) -> NDArray[np.float64]:
        """Error of the policy that 1 % of all steps exceed, (j,)."""
        return np.nanpercentile(self.absolute_errors[POLICY], 99, axis=(0, 1))

    @property
    def largest(self) -> NDArray[np.float64]:
        """Largest error of the policy, (j,)."""
        return np.nanmax(self.absolute_errors[POLICY], axis=(0, 1))

    @property
    def token_counts(self) -> Mapping[str, NDArray[np.int64]]:
        """Predictor -> tokens of the chunks of all episodes; empty for a policy without tokens."""
        names = self.episodes[0].token_counts
        return {name: np.concatenate([episode.token_counts[name] for episode in self.episodes]) for name in names}

    @property
    def mean_unit(self) -> str:
        """Unit of `mean_error`: "deg" if any joint is in degrees, else that of the first joint."""
        return DEG if DEG in self.units else self.units[0]

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Joints that are in `mean_unit`, (j,)."""
        return np.array([unit == self.mean_unit for unit in self.units])

    def mean_error(self, predictor: str) -> float:
        """Mean over the joints that are in `mean_unit`.

        Args:
            predictor: A key of `errors`.
        """
        return float(np.mean(self.errors[predictor][self.counted]))

    def error_by_step(self, predictor: str) -> NDArray[np.float64]:
        """Mean over frames and over the joints that are in `mean_unit`, (c,); NaN for a step outside every episode.

        Args:
            predictor: A key of `errors`.
        """
        errors = np.ma.masked_invalid(self.absolute_errors[predictor][..., self.counted])
        return errors.mean(axis=(0, 2)).filled(np.nan)

    @property
    def beats_baselines(self) -> bool:
        """Whether the policy errs less than holding still and than the mean action."""
        error = self.mean_error(POLICY)
        return error < self.mean_error(HOLD_STILL) and error < self.mean_error(MEAN_ACTION)

    @property
    def looks_at_images(self) -> bool:
        """Whether pictures of other frames make the policy clearly worse."""
        return self.mean_error(SHUFFLED_IMAGES) >= _CLEARLY_WORSE * self.mean_error(POLICY)


def spread(count: int, at_most: int | None) -> NDArray[np.int64]:
    """Indices of 0..count-1, the first and the last among them: all, or so many at even distances.

    Args:
        count: Number of things to choose from.
        at_most: How many to choose; None chooses all.
    """
    chosen = count if at_most is None else min(count, at_most)
    return np.linspace(0, count - 1, chosen).round().astype(np.int64)
