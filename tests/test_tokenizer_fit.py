"""Fitting to a recording, in whose shorter episodes the arm may do what it does nowhere else."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from conftest import JOINTS
from recorded_motion import recorded_motion

from lerobot_vla_plugin.action_tokenizers import TOKENIZER_KINDS, tokenizer_class
from lerobot_vla_plugin.action_tokenizers.chunk_codec import ChunkCodec
from lerobot_vla_plugin.tokenizer_fit import FIT_DEFAULTS, fit_codec

CHUNK, SHORT = 10, 6


@pytest.mark.parametrize("options", [{}, {"relative": False}, {"rate_distortion": False, "equal_ranges": False}])
def test_actions_of_a_shorter_episode_that_goes_further_come_back(options, tmp_path):
    joints = recorded_motion([60, 60, 60, SHORT], gripper_moves=[3])
    joints = replace(joints, actions=np.where(joints.episode_index[:, None] == 3, 3 * joints.actions, joints.actions))
    fit_codec(joints, tmp_path / "codec", "fast", CHUNK, options)
    codec = ChunkCodec.load(tmp_path / "codec")
    codec.check_fits(JOINTS, CHUNK, *joints.span)
    last = len(joints.actions) - 1
    held = joints.actions[np.minimum(last - SHORT + 1 + np.arange(CHUNK), last)][None]
    state = joints.states[[last - SHORT + 1]]
    assert np.abs(codec.decode(codec.encode(held, state), state) - held).max() < 5


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
def test_defaults_are_options_and_those_of_bins_and_vq_the_tokenizers_own(kind):
    own = inspect.signature(tokenizer_class(kind).fit).parameters
    of_codec = inspect.signature(ChunkCodec.fit).parameters
    for name, value in FIT_DEFAULTS[kind].items():
        assert name in own or name in of_codec
        assert kind == "fast" or name in of_codec or own[name].default == value
    assert own.keys() - {"chunks", "constant_joints", "show_progress"} <= FIT_DEFAULTS[kind].keys()
