"""Recordings that tokenizers are fitted to, and files that are none."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import JOINTS

from lerobot_vla_plugin.tokenizer_joints import RecordedJoints, read_joints


def write_parquet(path: Path, **columns: object) -> Path:
    vectors = np.zeros((4, 6), dtype=np.float32).tolist()
    given = {"action": vectors, "observation.state": vectors, "episode_index": [0, 0, 1, 1], **columns}
    pq.write_table(pa.table({name: values for name, values in given.items() if values is not None}), path)
    return path


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"episode_index": None}, "has no column ['episode_index']; it has ['action', 'observation.state']"),
        ({"action": [[0.0] * 5] * 4}, "action must hold 6 numbers in every frame"),
        ({"action": [["0"] * 6] * 4}, "action must hold floats, got list<"),
        ({"action": ["0"] * 4}, "action must hold floats, got string"),
        ({"observation.state": [[0] * 6] * 4}, "observation.state must hold floats, got list<"),
        ({"observation.state": [[0.0] * 6] * 3 + [[float("nan")] * 6]}, "observation.state is not finite"),
        ({"episode_index": list("0011")}, "episode_index must be an integer in every frame, got string"),
        ({"episode_index": [0.0, 0.0, 1.0, 1.0]}, "episode_index must be an integer in every frame, got double"),
        ({"episode_index": [0, 0, None, 1]}, "must be an integer in every frame, got int64 with 1 missing"),
        ({"frame_index": [0, None, 0, 1]}, "frame_index must be an integer in every frame"),
        ({"frame_index": [0, 1, 1, 0]}, "in row 3, of episode 1, it goes from 1 to 0. Sort the rows"),
        ({"frame_index": [0, 2, 0, 1]}, "in row 1, of episode 0, it goes from 0 to 2"),
    ],
)
def test_a_parquet_file_of_something_else_is_refused(tmp_path, columns, message):
    path = write_parquet(tmp_path / "joints.parquet", **columns)
    with pytest.raises(ValueError, match=rf"^{path}.*{re.escape(message)}"):
        read_joints(str(path))


@pytest.mark.parametrize("frame_index", [None, [0, 1, 0, 1], [5, 6, 3, 4]])
def test_frames_in_order_are_read(tmp_path, frame_index):
    joints = read_joints(str(write_parquet(tmp_path / "joints.parquet", frame_index=frame_index)))
    assert joints.episode_lengths == {0: 2, 1: 2}


def test_episodes_in_pieces_are_refused(tmp_path):
    joints = read_joints(str(write_parquet(tmp_path / "joints.parquet", episode_index=[0, 1, 0, 1])))
    with pytest.raises(ValueError, match="must follow each other"):
        joints.chunks(2)


def test_states_are_put_into_the_order_of_the_actions(recorded):
    """Its states hold another entry among the joints."""
    from tick_dataset import ACTION_TICKS, IN_DEGREES, STATE_TICKS, converter

    joints = read_joints(str(recorded))
    assert joints.joint_names == tuple(reversed(JOINTS))
    expected = converter(IN_DEGREES).to_units(STATE_TICKS), converter(IN_DEGREES).to_units(ACTION_TICKS)
    np.testing.assert_allclose(joints.states, expected[0], rtol=1e-6)
    np.testing.assert_allclose(joints.actions, expected[1], rtol=1e-6)


def test_a_large_recording_is_read_in_strides():
    frames = 50_000
    joints = RecordedJoints(Path(), ("a",), np.zeros((frames, 1)), np.zeros((frames, 1)), np.zeros(frames, dtype=int))
    assert len(joints.chunks(10)[0]) == len(joints.chunks(10, 5)[0]) == 9999
