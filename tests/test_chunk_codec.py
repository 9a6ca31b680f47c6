"""Chunks of an arm in its own units, through scaling and tokenizer and back."""

import json
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerobot_vla_plugin.action_tokenizers import MalformedTokensError
from lerobot_vla_plugin.action_tokenizers.chunk_codec import CODEC_FILE, ChunkCodec
from lerobot_vla_plugin.action_tokenizers.chunk_windows import action_chunks

JOINTS = ("shoulder_pan", "elbow_flex", "gripper")
CHUNK, FRAMES, EPISODES = 10, 60, 3


def motion(frames: int = FRAMES, episodes: int = EPISODES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Actions and states, (frames, 3), of smooth episodes whose states lag behind, and the episode of each frame."""
    generator = np.random.default_rng(0)
    steps = np.arange(frames)[:, None]
    amplitudes, middles = np.array([80.0, 30.0, 40.0]), np.array([0.0, -20.0, 50.0])
    phases = generator.uniform(0, 2 * np.pi, (episodes, 1, 3))
    speeds = generator.uniform(0.05, 0.3, (episodes, 1, 3))
    actions = middles + amplitudes * np.sin(speeds * steps + phases)
    states = actions - amplitudes * 0.1 * np.cos(speeds * steps + phases)
    return actions.reshape(-1, 3), states.reshape(-1, 3), np.repeat(np.arange(episodes), frames)


def chunks() -> tuple[np.ndarray, np.ndarray]:
    actions, states, episode_index = motion()
    cut, first_frames = action_chunks(actions, episode_index, CHUNK)
    return cut, states[first_frames]


ACTIONS, STATES = chunks()


def fit(kind: str = "bins", actions: np.ndarray = ACTIONS, states: np.ndarray = STATES, **options) -> ChunkCodec:
    return ChunkCodec.fit(actions, states, JOINTS, kind, **options)


@pytest.fixture(scope="module", params=[False, True], ids=["absolute", "relative"])
def codec(request) -> ChunkCodec:
    return fit(relative=request.param)


def test_a_chunk_comes_back_within_half_a_bin(codec):
    decoded = codec.decode(codec.encode(ACTIONS, STATES), STATES)
    assert decoded.shape == ACTIONS.shape
    scaled = codec.scaling.normalize(ACTIONS, STATES)
    half_a_bin = (codec.scaling.high - codec.scaling.low) / 255 / 2
    inside = np.abs(scaled) <= 1
    assert inside.mean() > 0.9
    assert (np.abs(decoded - ACTIONS) <= half_a_bin * (1 + 1e-9))[inside].all()


def test_quantiles_become_the_ends_of_the_scale(codec):
    scaled = codec.scaling.normalize(ACTIONS, STATES)
    np.testing.assert_allclose(np.quantile(scaled, [0.01, 0.99], axis=(0, 1)), [[-1] * 3, [1] * 3], atol=1e-9)


@given(seed=st.integers(0, 2**32 - 1))
def test_whatever_is_decoded_lies_in_the_span(codec, seed):
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, codec.vocab_size, (4, CHUNK * 3)).tolist()
    decoded = codec.decode(ids, generator.uniform(-300, 300, (4, 3)))
    assert (decoded >= ACTIONS.min(axis=(0, 1))).all()
    assert (decoded <= ACTIONS.max(axis=(0, 1))).all()


def test_normalizing_and_back_changes_nothing_inside_the_span(codec):
    scaled = codec.scaling.normalize(ACTIONS, STATES)
    np.testing.assert_allclose(codec.scaling.unnormalize(scaled, STATES), ACTIONS, atol=1e-9)


def test_with_a_state_of_zero_relative_is_absolute():
    zero = np.zeros_like(STATES)
    absolute, relative = fit(states=zero), fit(states=zero, relative=True)
    assert relative.encode(ACTIONS, zero) == absolute.encode(ACTIONS, zero)


def test_moving_state_and_actions_together_changes_no_id():
    relative = fit(relative=True)
    shift = np.array([7.0, -3.0, 0.0])  # the gripper is never relative
    assert relative.encode(ACTIONS + shift, STATES + shift) == relative.encode(ACTIONS, STATES)
    absolute = fit()
    assert absolute.encode(ACTIONS + shift, STATES + shift) != absolute.encode(ACTIONS, STATES)
    assert absolute.encode(ACTIONS, STATES + shift) == absolute.encode(ACTIONS, STATES)


def test_with_equal_ranges_a_unit_counts_as_much_in_every_joint():
    scaling, own = fit(equal_ranges=True).scaling, fit().scaling
    widths = scaling.high - scaling.low
    np.testing.assert_allclose(widths, (own.high - own.low).mean())
    np.testing.assert_allclose(scaling.low + scaling.high, own.low + own.high)


def test_a_constant_joint_says_nothing_about_the_equal_range():
    actions = ACTIONS.copy()
    actions[..., 1] = 12.5
    scaling, own = fit(actions=actions, equal_ranges=True).scaling, fit(actions=actions).scaling
    widths, own_widths = scaling.high - scaling.low, own.high - own.low
    assert widths[1] == own_widths[1]
    np.testing.assert_allclose(widths[[0, 2]], own_widths[[0, 2]].mean())


def test_only_body_joints_are_relative():
    assert fit(relative=True).scaling.relative_joints == ("shoulder_pan", "elbow_flex")
    assert fit().scaling.relative_joints == ()


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("kind", ["fast", "bins"])
def test_a_saved_codec_is_the_same_codec(kind, relative, tmp_path):
    saved = fit(kind, relative=relative)
    saved.save(tmp_path)
    loaded = ChunkCodec.load(tmp_path)
    assert (loaded.joint_names, loaded.chunk_size, loaded.vocab_size) == (JOINTS, CHUNK, saved.vocab_size)
    ids = saved.encode(ACTIONS, STATES)
    assert loaded.encode(ACTIONS, STATES) == ids
    np.testing.assert_array_equal(loaded.decode(ids, STATES), saved.decode(ids, STATES))


@pytest.mark.parametrize("relative", [False, True])
def test_a_constant_joint_is_named_and_stays_where_it_is(relative, caplog):
    actions, states = ACTIONS.copy(), STATES.copy()
    actions[..., 1] = 12.5
    states[:, 1] += np.random.default_rng(0).normal(0, 0.05, len(states))  # its encoder still flickers
    with caplog.at_level(logging.WARNING):
        codec = fit("fast", actions, states, relative=relative)
    assert "elbow_flex (12.5)" in caplog.text
    assert "shoulder_pan" not in caplog.text
    assert (codec.decode(codec.encode(actions, states), states)[..., 1] == 12.5).all()
    assert "elbow_flex" not in codec.scaling.relative_joints


def test_a_joint_that_moves_for_a_moment_is_scaled_by_that_moment():
    """Its quantiles are equal, or nearly: scaled by them, the moment would be thousands of times the rest."""
    actions = ACTIONS.copy()
    actions[..., 2] = np.random.default_rng(0).normal(0, 0.01, actions.shape[:2])
    actions[0, :, 2] = 40.0
    codec = fit("fast", actions)
    assert np.abs(codec.scaling.normalize(actions, STATES)).max() < 10
    assert np.abs(codec.decode(codec.encode(actions, STATES), STATES) - actions)[..., 2].max() < 10


def broken(actions: np.ndarray, value: float) -> np.ndarray:
    copy = actions.copy()
    copy[..., 1].flat[3] = value
    return copy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones_like(ACTIONS), STATES, JOINTS), "none of the joints .*elbow_flex.* moves"),
        ((broken(ACTIONS, np.nan), STATES, JOINTS), r"actions of \['elbow_flex'\] are not finite"),
        ((ACTIONS, broken(STATES, np.inf), JOINTS), r"states of \['elbow_flex'\] are not finite"),
        ((ACTIONS, STATES, JOINTS[:2]), r"expected chunks \(n, steps, 2\)"),
        ((ACTIONS, STATES[1:], JOINTS), r"their states \(n, 3\)"),
        ((ACTIONS[:0], STATES[:0], JOINTS), "expected chunks to fit"),
        ((ACTIONS, STATES, ("gripper", "elbow_flex", "gripper")), "a name each"),
        ((ACTIONS, STATES, JOINTS, "zip"), "no action tokenizer 'zip'; there are fast, bins, vq"),
    ],
)
def test_what_cannot_be_fitted_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ChunkCodec.fit(*arguments)


def test_neither_encoding_nor_decoding_passes_what_is_not_finite(codec):
    with pytest.raises(ValueError, match="actions of"):
        codec.encode(broken(ACTIONS, np.nan), STATES)
    ids = codec.encode(ACTIONS, STATES)
    with pytest.raises(ValueError, match="states of"):
        codec.decode(ids, broken(STATES, np.nan))


def test_a_chunk_of_another_size_is_refused(codec):
    with pytest.raises(ValueError, match="expected chunks of 10 steps, got 9"):
        codec.encode(ACTIONS[:, 1:], STATES)
    ids = codec.encode(ACTIONS[:2], STATES[:2])
    with pytest.raises(MalformedTokensError):
        codec.decode([ids[0], ids[1][:-1]], STATES[:2])


LOW, HIGH = ACTIONS.min(axis=(0, 1)), ACTIONS.max(axis=(0, 1))


def test_data_that_it_was_fitted_for_fit(codec):
    codec.check_fits([f"{name}.pos" for name in JOINTS], CHUNK, LOW, HIGH)
    codec.check_fits(JOINTS, CHUNK, LOW + 5, HIGH - 5)
    codec.check_fits(JOINTS, CHUNK, LOW - 0.09 * (HIGH - LOW), HIGH)


@pytest.mark.parametrize(
    ("joints", "chunk_size", "low", "high", "message"),
    [
        (JOINTS[::-1], CHUNK, LOW, HIGH, "fitted for the joints .*tokenizer fit"),
        (JOINTS[:2], CHUNK, LOW[:2], HIGH[:2], "fitted for the joints"),
        (JOINTS, 9, LOW, HIGH, "fitted for chunk_size 10, not 9.*--chunk-size=9"),
        (JOINTS, CHUNK, LOW - [0, 10, 0], HIGH, "elbow_flex runs from .*fitted on .*tokenizer fit"),
        (JOINTS, CHUNK, LOW, HIGH + np.array([0, 10, 0]), "elbow_flex runs"),
        (JOINTS, CHUNK, LOW, HIGH * [1, np.nan, 1], "elbow_flex runs"),
    ],
)
def test_other_data_are_refused_with_the_remedy(codec, joints, chunk_size, low, high, message):
    with pytest.raises(ValueError, match=message) as refusal:
        codec.check_fits(joints, chunk_size, low, high)
    assert "shoulder_pan runs" not in str(refusal.value)


def test_a_constant_joint_may_flicker_but_not_move():
    actions = ACTIONS.copy()
    actions[..., 1] = 12.5
    codec = fit(actions=actions)
    low, high = actions.min(axis=(0, 1)), actions.max(axis=(0, 1))
    codec.check_fits(JOINTS, CHUNK, low - [0, 0.1, 0], high)
    with pytest.raises(ValueError, match="elbow_flex runs from 11"):
        codec.check_fits(JOINTS, CHUNK, low - [0, 1.5, 0], high)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "unknown \\['surprise'\\]"),
        ({"chunk_size": "10"}, "chunk_size"),
        ({"kind": "bins"}, "expected kind 'chunk_codec'"),
        ({"version": 2}, "expected version 1"),
        ({"low": [0, 1]}, "low must hold 3 finite numbers"),
        ({"low": [0, None, 1]}, "low must hold 3 finite numbers"),
        ({"span_low": [0, "x", 1]}, "could not convert"),
        ({"span_low": [0, 10**400, 1]}, "too large"),
        ({"high": [-1e6, 1, 1]}, "low must lie below high"),
        ({"relative_joints": ["elbow"]}, "relative_joints has \\['elbow'\\]; there are"),
        ({"joint_names": ["a", "b", ["c"]]}, "a name each|unhashable"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
    ],
)
def test_a_damaged_codec_is_refused(tmp_path, change, message):
    fit().save(tmp_path)
    path = tmp_path / CODEC_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message) as refusal:
        ChunkCodec.load(tmp_path)
    assert CODEC_FILE in str(refusal.value)


def test_an_incomplete_codec_is_refused(tmp_path):
    fit().save(tmp_path)
    path = tmp_path / CODEC_FILE
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match=r"codec\.json is no JSON.*cut short"):
        ChunkCodec.load(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"codec\.json is missing"):
        ChunkCodec.load(tmp_path)


@pytest.mark.parametrize("file", ["tokenizer.json", "action_tokenizer.json"])
def test_a_damaged_tokenizer_is_blamed_itself(tmp_path, file):
    fit("fast").save(tmp_path)
    (tmp_path / file).write_text('{"kind": "x"}')
    with pytest.raises(ValueError, match=f"{file}") as refusal:
        ChunkCodec.load(tmp_path)
    assert CODEC_FILE not in str(refusal.value)


def test_a_tokenizer_of_other_joints_is_refused(tmp_path):
    fit(quantiles=True).save(tmp_path)
    ChunkCodec.fit(ACTIONS[..., :2], STATES[:, :2], JOINTS[:2], "bins", quantiles=True).tokenizer.save(tmp_path)
    with pytest.raises(ValueError, match="fitted to 2 joints, got 3"):
        ChunkCodec.load(tmp_path)


def test_a_wider_span_changes_no_id():
    codec = fit()
    wider = codec.with_span(LOW - 50, HIGH + 50)
    ids = codec.encode(ACTIONS, STATES)
    assert wider.encode(ACTIONS, STATES) == ids
    np.testing.assert_allclose(wider.decode(ids, STATES), codec.decode(ids, STATES))
    wider.check_fits(JOINTS, CHUNK, LOW - 50, HIGH + 50)
    with pytest.raises(ValueError, match="span_low not above span_high"):
        codec.with_span(HIGH, LOW)


def test_a_scaling_can_be_put_around_a_tokenizer():
    fitted = fit(relative=True)
    around = ChunkCodec.around(fitted.tokenizer, ACTIONS, STATES, JOINTS, relative=True)
    assert around.encode(ACTIONS, STATES) == fitted.encode(ACTIONS, STATES)
    assert around.chunk_size == CHUNK
