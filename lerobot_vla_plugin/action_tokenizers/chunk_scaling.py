"""Robot units of action chunks <-> the -1..1 that action tokenizers work in."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

_log = logging.getLogger(__name__)

_LOW_QUANTILE, _HIGH_QUANTILE = 0.01, 0.99
# A joint that moves for a moment only has both quantiles at rest; scaled by them, that moment would be enormous.
_SMALLEST_QUANTILE_SHARE = 0.1
# Far above the rounding of float32, far below an encoder tick (0.088 deg, about 0.05 %).
_STILL = 1e-3
# Range given to a joint that never moved, so that it can be scaled and may flicker, in robot units.
_RANGE_OF_STILL = 2.0
# Data may leave the fitted span by this share of it, see `check_span` and `with_span`.
_SPAN_TOLERANCE = 0.1


@dataclass(frozen=True, eq=False)
class ChunkScaling:
    """How the joints of a chunk are scaled, and the span that they were seen in.

    Attributes:
        joint_names: Joints of the last axis, without LeRobot's ".pos".
        relative_joints: Joints that are encoded as their distance from the present state.
        low: What becomes -1, (j,), in robot units.
        high: What becomes 1, (j,).
        span_low: Smallest action of the data, (j,), in robot units; nothing smaller is ever decoded.
        span_high: Largest action, (j,).

    Raises:
        ValueError: The fields contradict each other.
    """

    joint_names: tuple[str, ...]
    relative_joints: tuple[str, ...]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    span_low: NDArray[np.float64]
    span_high: NDArray[np.float64]

    def __post_init__(self) -> None:
        names = self.joint_names
        if not names or len(set(names)) != len(names) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"expected joints with a name each, got {list(names)}")
        unknown = sorted(set(self.relative_joints) - set(names))
        if unknown:
            raise ValueError(f"relative_joints has {unknown}; there are {list(names)}")
        for field in ("low", "high", "span_low", "span_high"):
            values = getattr(self, field)
            if values.shape != (len(names),) or not np.isfinite(values).all():
                raise ValueError(f"{field} must hold {len(names)} finite numbers, got {values.tolist()}")
        if not (self.low < self.high).all() or not (self.span_low <= self.span_high).all():
            raise ValueError("low must lie below high, and span_low not above span_high, for every joint")

    @classmethod
    def fit(
        cls,
        actions: NDArray,
        states: NDArray,
        joint_names: Sequence[str],
        *,
        relative: bool = False,
        equal_ranges: bool = False,
    ) -> Self:
        """Measure the scales of recorded chunks, -1..1 from the quantile 0.01 to the quantile 0.99 of what is encoded.

        A joint that never moves is warned of and kept where it is.

        Args:
            actions: Chunks, (n, c, j), in robot units.
            states: State at the first step of each, (n, j).
            joint_names: Joints of the last axis; ".pos" at their end says nothing.
            relative: Encode all joints but grippers as their distance from the present state.
            equal_ranges: Give all joints that move the mean of their ranges, so that a robot unit counts as much in
                each; else a joint that moves little is encoded finely, one that moves far coarsely.

        Raises:
            ValueError: There is no chunk, the shapes do not fit, a value is not finite, no joint moves, or a relative
                one keeps its distance from the state.
        """
        joint_names = _without_suffix(joint_names)
        actions, states = _checked(actions, states, joint_names)
        if not actions.size:
            raise ValueError(f"expected chunks to fit a tokenizer to, got shape {actions.shape}")
        span_low, span_high = actions.min(axis=(0, 1)), actions.max(axis=(0, 1))
        moving = span_high - span_low > _STILL
        if not moving.any():
            raise ValueError(f"none of the joints {list(joint_names)} moves; was the arm recorded at all?")
        distances = relative & moving & np.array([may_be_relative(name) for name in joint_names])
        encoded = actions - np.where(distances, states, 0)[:, None]
        _check_distances(encoded, joint_names, moving)
        low, high = _quantile_range(encoded)
        if equal_ranges:
            low, high = _equal_ranges(low, high, moving)
        scaling = cls(
            joint_names=joint_names,
            relative_joints=tuple(name for name, chosen in zip(joint_names, distances, strict=True) if chosen),
            low=low,
            high=high,
            span_low=span_low,
            span_high=span_high,
        )
        if not moving.all():
            still = ", ".join(f"{joint_names[j]} ({span_low[j]:.6g})" for j in scaling.constant_joints)
            _log.warning("joints that never move in the data will always be decoded to where they are: %s", still)
        return scaling

    @property
    def constant_joints(self) -> tuple[int, ...]:
        """Positions of the joints that never moved."""
        return tuple(np.flatnonzero(self.span_high - self.span_low <= _STILL).tolist())

    @cached_property
    def _is_relative(self) -> NDArray[np.bool_]:
        return np.isin(self.joint_names, self.relative_joints)

    def normalize(self, actions: NDArray, states: NDArray) -> NDArray[np.float64]:
        """Scale chunks; the inverse of `unnormalize` inside the span.

        Args:
            actions: Chunks, (n, c, j), in robot units.
            states: State at the first step of each, (n, j).

        Raises:
            ValueError: The shapes do not fit together, or a value is not finite.
        """
        actions, states = _checked(actions, states, self.joint_names)
        encoded = actions - np.where(self._is_relative, states, 0)[:, None]
        return (encoded - self.low) * (2 / (self.high - self.low)) - 1

    def unnormalize(self, chunks: NDArray, states: NDArray) -> NDArray[np.float64]:
        """Scale chunks back, and clamp them to the span.

        Args:
            chunks: Normalised chunks, (n, c, j).
            states: State at the first step of each, (n, j).

        Raises:
            ValueError: The shapes do not fit together, or a value is not finite.
        """
        chunks, states = _checked(chunks, states, self.joint_names)
        encoded = (chunks + 1) * ((self.high - self.low) / 2) + self.low
        actions = encoded + np.where(self._is_relative, states, 0)[:, None]
        return np.clip(actions, self.span_low, self.span_high)

    def with_span(self, low: ArrayLike, high: ArrayLike) -> Self:
        """The same with another span.

        Args:
            low: Smallest action, (j,), in robot units.
            high: Largest action, (j,).

        Raises:
            ValueError: Not a finite number for each joint, `low` lies above `high`, or a joint that never moved in the
                chunks does: its motion has no place in the scale.
        """
        span_low, span_high = np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)
        widened = replace(self, span_low=span_low, span_high=span_high)
        leaving = [joint for joint in self.constant_joints if not self._inside(span_low, span_high)[joint]]
        if leaving:
            moving = self._described(leaving, span_low, span_high)
            raise ValueError(
                f"the chunks that were fitted to hold no motion of joints that move elsewhere in the data: {moving}; "
                "choose a smaller chunk_size, so that they do, or leave out the episodes in which these joints move"
            )
        return widened

    def check_joints(self, joint_names: Sequence[str], remedy: str) -> None:
        """Refuse other joints, or the same in another order.

        Args:
            joint_names: Joints of the data; ".pos" at their end says nothing.
            remedy: What to do about it, for the message.

        Raises:
            ValueError: The joints are others.
        """
        if _without_suffix(joint_names) != self.joint_names:
            raise ValueError(
                f"the action tokenizer was fitted for the joints {list(self.joint_names)}, the data have "
                f"{list(joint_names)}; {remedy}"
            )

    def check_span(self, action_low: ArrayLike, action_high: ArrayLike, remedy: str) -> None:
        """Refuse data that leave the span by more than a tenth of it: they would be clamped. Warn of smaller excess.

        Args:
            action_low: Smallest action of the data, (j,), in robot units.
            action_high: Largest action, (j,).
            remedy: What to do about it, for the message.

        Raises:
            ValueError: Naming each such joint and both spans.
        """
        low, high = np.asarray(action_low, dtype=np.float64), np.asarray(action_high, dtype=np.float64)
        if low.shape != self.span_low.shape or high.shape != low.shape:
            raise ValueError(f"expected {len(self.joint_names)} smallest and largest actions, got {low} and {high}")
        outside = np.flatnonzero(~self._inside(low, high))
        if len(outside):
            described = self._described(outside, low, high)
            raise ValueError(f"the data leave what the action tokenizer was fitted on: {described}; {remedy}")
        clamped = np.flatnonzero((low < self.span_low - _STILL) | (high > self.span_high + _STILL))
        if len(clamped):
            _log.warning(
                "the data leave what the action tokenizer was fitted on a little, and are clamped to it: %s. "
                "If that matters, %s",
                self._described(clamped, low, high),
                remedy,
            )

    def _inside(self, low: NDArray, high: NDArray) -> NDArray[np.bool_]:
        """Joints that stay in the span, or leave it by a tenth of it at most."""
        tolerance = _SPAN_TOLERANCE * np.maximum(self.span_high - self.span_low, _RANGE_OF_STILL)
        # Written so that a NaN is outside, too.
        return (low >= self.span_low - tolerance) & (high <= self.span_high + tolerance)

    def _described(self, joints: Iterable[int], low: NDArray, high: NDArray) -> str:
        """Both spans of some joints."""
        return "; ".join(
            f"{self.joint_names[j]} runs from {low[j]:.5g} to {high[j]:.5g}, fitted on "
            f"{self.span_low[j]:.5g} to {self.span_high[j]:.5g}"
            for j in joints
        )


def _checked(actions: NDArray, states: NDArray, joint_names: Sequence[str]) -> tuple[NDArray, NDArray]:
    """Both as float64; raises ValueError where the shapes do not fit together or a value is not finite."""
    actions, states = np.asarray(actions, dtype=np.float64), np.asarray(states, dtype=np.float64)
    joints = len(joint_names)
    if actions.ndim != 3 or actions.shape[2] != joints or states.shape != (len(actions), joints):
        raise ValueError(
            f"expected chunks (n, steps, {joints}) of the joints {list(joint_names)} and their states (n, {joints}), "
            f"got {actions.shape} and {states.shape}"
        )
    for what, values in (("actions", actions), ("states", states)):
        finite = np.isfinite(values).all(axis=tuple(range(values.ndim - 1)))
        if not finite.all():
            raise ValueError(f"{what} of {[joint_names[j] for j in np.flatnonzero(~finite)]} are not finite")
    return actions, states


def _without_suffix(joint_names: Sequence[str]) -> tuple[str, ...]:
    """LeRobot calls joints "elbow_flex.pos" in data sets and "elbow_flex" in calibrations."""
    return tuple(name.removesuffix(".pos") for name in joint_names)


def may_be_relative(joint: str) -> bool:
    """Whether the distance from its state says something about what a joint is told."""
    # A gripper's goal lies inside what it holds, so its state says little about it. A velocity is no place at all.
    return not joint.endswith(("gripper", ".vel"))


def _check_distances(encoded: NDArray, joint_names: Sequence[str], moving: NDArray[np.bool_]) -> None:
    """Raise ValueError where a joint moves, but its distance from the state does not: only that would be encoded."""
    same = moving & (np.ptp(encoded, axis=(0, 1)) <= _STILL)
    if same.any():
        raise ValueError(
            f"the actions of {[joint_names[j] for j in np.flatnonzero(same)]} move, but never differ from the state at "
            "the first step of their chunk, or always by the same: encoded as the distance from it, nothing is left of "
            "them. Encode them as they are, with `lerobot-vla tokenizer fit --no-relative` (relative=False)"
        )


def _quantile_range(values: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What becomes -1 and 1, (j,) each: the quantiles; the extremes where those say nothing."""
    low, high = np.quantile(values, (_LOW_QUANTILE, _HIGH_QUANTILE), axis=(0, 1))
    smallest, largest = values.min(axis=(0, 1)), values.max(axis=(0, 1))
    rare = high - low < _SMALLEST_QUANTILE_SHARE * (largest - smallest)
    low, high = np.where(rare, smallest, low), np.where(rare, largest, high)
    around = np.where(largest - smallest <= _STILL, _RANGE_OF_STILL / 2, 0)
    return low - around, high + around


def _equal_ranges(low: NDArray, high: NDArray, moving: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same middles, (j,), with the mean of the ranges of the joints that move."""
    middle, half = (low + high) / 2, (high - low) / 2
    half = np.where(moving, half[moving].mean(), half)
    return middle - half, middle + half
