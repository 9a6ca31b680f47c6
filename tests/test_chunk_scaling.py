"""The span of a scaling, and what has no place in its scales."""

import logging

import numpy as np
import pytest
from fast_reference import smooth_chunks

from lerobot_vla_plugin.action_tokenizers.chunk_scaling import ChunkScaling

JOINTS = ("shoulder_pan", "elbow_flex")
ACTIONS = 30 * smooth_chunks(50, 10, 2)
STATES = ACTIONS[:, 0] - 1
LOW, HIGH = ACTIONS.min(axis=(0, 1)), ACTIONS.max(axis=(0, 1))
WIDTH = HIGH - LOW


def fit(actions: np.ndarray = ACTIONS, states: np.ndarray = STATES, **options) -> ChunkScaling:
    return ChunkScaling.fit(actions, states, JOINTS, **options)


def still_elbow() -> np.ndarray:
    actions = ACTIONS.copy()
    actions[..., 1] = 12.5
    return actions


@pytest.mark.parametrize("beyond", [[0, 0.05], [0, -0.05]])
def test_whatever_leaves_the_span_a_little_is_warned_of(beyond, caplog):
    excess = WIDTH * beyond
    fit().check_span(LOW + np.minimum(excess, 0), HIGH + np.maximum(excess, 0), "fit another")
    assert "clamped to it: elbow_flex runs from" in caplog.text
    assert f"fitted on {LOW[1]:.5g} to {HIGH[1]:.5g}. If that matters, fit another" in caplog.text
    assert "shoulder_pan" not in caplog.text


def test_what_stays_in_the_span_is_not_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        fit().check_span(LOW, HIGH, "fit another")
        fit().check_span(LOW.astype(np.float32), HIGH.astype(np.float32), "fit another")
        fit().check_span(LOW + 1, HIGH - 1, "fit another")
    assert caplog.text == ""


def test_a_span_cannot_be_widened_for_a_joint_that_never_moved():
    scaling = fit(still_elbow())
    low, high = scaling.span_low, scaling.span_high
    further = np.array([50, 0.1])
    assert (scaling.with_span(low - further, high + further).span_high == high + further).all()
    with pytest.raises(ValueError, match=r": elbow_flex runs from 12.5 to 60, fitted on 12.5 to 12.5; choose a small"):
        scaling.with_span(low - [50, 0], [high[0] + 50, 60])


@pytest.mark.parametrize("distance", [0, 3])
def test_joints_that_keep_their_distance_from_the_state_are_not_encoded_as_it(distance):
    """They stand still in every chunk, each time elsewhere."""
    actions = ACTIONS.copy()
    actions[..., 1] = actions[:, :1, 1]
    states = actions[:, 0] - distance
    assert not fit(actions, states).constant_joints
    with pytest.raises(ValueError, match=r"actions of \['elbow_flex'\] move, but never differ .* --no-relative"):
        fit(actions, states, relative=True)
