"""Which episodes action tokenizers are compared on, and what counts as their error."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recorded_motion import recorded_motion

from lerobot_vla_cli.main import main
from lerobot_vla_plugin.tokenizer_compare import compare, make_folds
from lerobot_vla_plugin.tokenizer_rows import rows_of

CHUNK = 8


def test_every_episode_is_tested_once_and_never_fitted_to_at_once():
    for episodes, count in (([3, 5, 9], 5), (list(range(23)), 5), (list(range(4)), 2)):
        folds = make_folds(dict.fromkeys(episodes, CHUNK), count, CHUNK)
        assert len(folds) == min(count, len(episodes))
        assert sorted(episode for fold in folds for episode in fold.test_episodes) == episodes
        for fold in folds:
            assert sorted(fold.fit_episodes + fold.test_episodes) == episodes
            assert fold.fit_episodes


def test_episodes_shorter_than_a_chunk_come_into_no_fold():
    folds = make_folds({0: 50, 1: 49, 2: 374}, 5, 50)
    assert [(fold.fit_episodes, fold.test_episodes) for fold in folds] == [([2], [0]), ([0], [2])]
    with pytest.raises(ValueError, match=r"2 episodes of 51 frames.* of 3 so long are 1, the longest has 374 frames"):
        make_folds({0: 50, 1: 49, 2: 374}, 5, 51)


def test_a_short_episode_is_left_out_and_named(tmp_path, capsys):
    joints = recorded_motion([40, 5, 40, 7], gripper_moves=[1])
    columns = {"action": joints.actions.tolist(), "observation.state": joints.states.tolist()}
    pq.write_table(pa.table({**columns, "episode_index": joints.episode_index}), tmp_path / "joints.parquet")
    options = [f"--chunk-size={CHUNK}", "--tokenizers=fast", f"--output={tmp_path / 'out'}"]
    assert main(["tokenizer", "compare", str(tmp_path / "joints.parquet"), *options]) == 0
    assert "shorter than a chunk of 8 steps: episodes 1, 3\n" in capsys.readouterr().out
    folds = json.loads((tmp_path / "out" / "compare.json").read_text())["folds"]
    assert folds == [{"fit": [2], "test": [0]}, {"fit": [0], "test": [2]}]


def test_what_moves_in_one_episode_only_is_an_error_where_that_one_is_tested():
    joints = recorded_motion([40, 40, 40], gripper_moves=[1])
    folds = make_folds(joints.episode_lengths, 3, CHUNK)
    results = [result for _, result in compare(joints, rows_of(["fast"])[-1:], folds, CHUNK, 1)]
    moved = np.abs(joints.of_episodes([1]).actions[:, -1] - 12.5).max()
    assert results[1].error_max[-1] == pytest.approx(moved)
    assert max(results[0].error_max[-1], results[2].error_max[-1]) < 5
