"""`lerobot-vla tokenizer`: fit a codec for training, and compare tokenizers on episodes that were not fitted to."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import JOINTS, write_dataset

from lerobot_vla_cli.main import main
from lerobot_vla_plugin.action_tokenizers.chunk_codec import ChunkCodec
from lerobot_vla_plugin.arms.annotation import ArmAnnotation, write_annotation
from lerobot_vla_plugin.arms.calibration import example_calibration, example_calibration_dir
from lerobot_vla_plugin.tokenizer_compare import make_folds
from lerobot_vla_plugin.tokenizer_fit import fit_codec
from lerobot_vla_plugin.tokenizer_joints import RecordedJoints, read_joints
from lerobot_vla_plugin.tokenizer_units import error_units

FRAMES, CHUNK = 40, 8
SO101 = example_calibration("so_follower", "so101_follower")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Three episodes without pictures; no test may change it."""
    root = tmp_path_factory.mktemp("data") / "waving"
    write_dataset(root, num_frames=FRAMES, cameras=())
    return root


@pytest.fixture(scope="module")
def parquet(dataset, tmp_path_factory) -> Path:
    """The same joints as a bare file."""
    path = tmp_path_factory.mktemp("data") / "joints.parquet"
    [file] = dataset.glob("data/*/*.parquet")
    pq.write_table(pq.read_table(file, columns=["action", "observation.state", "episode_index"]), path)
    return path


def tokenizer(*arguments: object) -> int:
    return main(["tokenizer", *map(str, arguments)])


def fit(*arguments: object) -> int:
    return tokenizer("fit", f"--chunk-size={CHUNK}", *arguments)


def compare(*arguments: object) -> int:
    return tokenizer("compare", f"--chunk-size={CHUNK}", *arguments)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (["--scale=5", "--vocab-size=300"], "fast"),
        (["--kind=bins", "--bins=64", "--quantiles"], "bins"),
        (["--no-relative", "--no-equal-ranges", "--no-rate-distortion"], "fast"),
        (["--kind=vq", "--codes=8", "--levels=2", "--steps=3"], "vq"),
    ],
)
def test_fit_writes_a_codec_and_the_command_that_trains_with_it(dataset, tmp_path, capsys, options, kind):
    output = tmp_path / "codec"
    assert fit(dataset, f"--output={output}", *options) == 0
    said = capsys.readouterr().out
    assert f"--policy.type=vla_fast --policy.action_tokenizer_path={output}" in said
    assert f"--policy.chunk_size={CHUNK} --dataset.repo_id=local/waving --dataset.root={dataset}" in said
    codec = ChunkCodec.load(output)
    assert (codec.tokenizer.kind, codec.joint_names, codec.chunk_size) == (kind, tuple(JOINTS), CHUNK)
    assert bool(codec.scaling.relative_joints) == (kind == "fast" and "--no-relative" not in options)
    joints = read_joints(str(dataset))
    codec.check_fits(JOINTS, CHUNK, joints.actions.min(axis=0), joints.actions.max(axis=0))
    actions, states = joints.chunks(CHUNK)
    assert len(actions) == 3 * (FRAMES - CHUNK + 1)
    assert np.abs(codec.decode(codec.encode(actions, states), states) - actions).mean() < 10


def test_options_reach_the_tokenizer(dataset, tmp_path):
    assert fit(dataset, f"--output={tmp_path / 'a'}", "--kind=bins", "--bins=17") == 0
    assert ChunkCodec.load(tmp_path / "a").vocab_size == 17
    assert fit(dataset, f"--output={tmp_path / 'b'}", "--scale=3.5") == 0
    assert ChunkCodec.load(tmp_path / "b").tokenizer.scale == 3.5


def test_fitting_twice_gives_the_same_files(dataset, tmp_path):
    for name in ("a", "b"):
        assert fit(dataset, f"--output={tmp_path / name}") == 0
    files = {path.name for path in (tmp_path / "a").iterdir()}
    assert files == {path.name for path in (tmp_path / "b").iterdir()}
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def test_a_bare_parquet_file_is_the_same_recording(dataset, parquet, tmp_path, capsys):
    assert fit(parquet, f"--output={tmp_path / 'a'}") == 0
    assert "--dataset.repo_id=..." in capsys.readouterr().out
    assert fit(dataset, f"--output={tmp_path / 'b'}") == 0
    assert (tmp_path / "a" / "codec.json").read_bytes() == (tmp_path / "b" / "codec.json").read_bytes()


def test_an_existing_folder_is_not_touched(dataset, tmp_path, capsys):
    (tmp_path / "mine").write_text("kept")
    assert fit(dataset, f"--output={tmp_path}") == 2
    assert compare(dataset, f"--output={tmp_path}") == 2
    assert capsys.readouterr().err.count("exists; name a new folder") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bins=3"], "--bins is an option of --kind=bins, not of --kind=fast"),
        (["--kind=bins", "--scale=3"], "--scale is an option of --kind=fast"),
        (["--scale=-1"], "positive scale"),
        (["--chunk-size=41"], "the longest has 40 frames"),
        (["--chunk-size=0"], "at least 1"),
    ],
)
def test_a_fit_that_cannot_be_leaves_nothing_behind(dataset, tmp_path, capsys, options, message):
    assert fit(dataset, f"--output={tmp_path / 'codec'}", *options) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_leaves_nothing_behind(dataset, tmp_path, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("lerobot_vla_plugin.action_tokenizers.fast.FastTokenizer.save", fail)
    assert fit(dataset, f"--output={tmp_path / 'codec'}") == 2
    assert "disk full" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_compare_writes_table_and_picture(dataset, tmp_path, capsys):
    output = tmp_path / "compared"
    assert compare(dataset, f"--output={output}", "--tokenizers=fast,bins") == 0
    said = capsys.readouterr().out
    assert "fast, scale 10" in said
    assert "fitted\n3 times" in said
    assert {path.name for path in output.iterdir()} == {"compare.csv", "compare.json", "compare.png"}
    assert (output / "compare.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((output / "compare.json").read_text())
    assert [fold["test"] for fold in content["folds"]] == [[0], [1], [2]]
    fast = {entry["tokenizer"]: entry for entry in content["tokenizers"] if entry["kind"] == "fast"}
    coarse, fine = fast["fast, scale 5"], fast["fast, scale 50"]
    assert coarse["tokens_mean"] < fine["tokens_mean"]
    assert coarse["error_mean"] > fine["error_mean"]
    assert len(coarse["error_mean_by_fold"]) == 3
    per_joint = coarse["joints"]["as recorded"]
    assert list(per_joint) == JOINTS
    assert np.mean([joint["error_mean"] for joint in per_joint.values()]) == pytest.approx(coarse["error_mean"])
    assert max(joint["error_max"] for joint in per_joint.values()) == coarse["error_max"]
    bins = {entry["tokenizer"]: entry for entry in content["tokenizers"]}["bins, 256"]
    assert (bins["tokens_mean"], bins["tokens_p99"]) == (CHUNK * len(JOINTS), CHUNK * len(JOINTS))
    lines = list(csv.DictReader((output / "compare.csv").open()))
    assert len(lines) == len(content["tokenizers"]) * (1 + len(JOINTS))
    assert {line["joint"] for line in lines} == {"all", *JOINTS}


def test_an_annotated_recording_is_compared_in_degrees_and_ticks(dataset, tmp_path, capsys):
    root = Path(shutil.copytree(dataset, tmp_path / "annotated"))
    write_annotation(root, ArmAnnotation("so_follower", "so101_follower", "degrees", SO101))
    assert compare(root, f"--output={tmp_path / 'a'}", "--tokenizers=bins") == 0
    assert "[ticks]" in capsys.readouterr().out
    path = example_calibration_dir("so_follower") / "so101_follower.json"
    options = (f"--calibration={path}", "--joint-unit=degrees")
    assert compare(dataset, f"--output={tmp_path / 'b'}", "--tokenizers=bins", *options) == 0
    a, b = (json.loads((tmp_path / name / "compare.json").read_text())["tokenizers"] for name in "ab")
    assert a[0]["joints"] == b[0]["joints"]
    assert set(a[0]["joints"]) == {"deg, gripper %", "deg", "ticks"}
    assert compare(root, "--tokenizers=bins", *options) == 2
    assert compare(dataset, "--tokenizers=bins", "--joint-unit=degrees") == 2
    said = capsys.readouterr().err
    assert "leave --calibration and --joint-unit out" in said
    assert "only together" in said


@pytest.mark.parametrize("unit", ["degrees", "percent"])
def test_errors_are_converted_as_the_arm_converts_positions(unit):
    from lerobot_vla_plugin.arms.joints import JointConverter, joint_modes

    converter = JointConverter(SO101, joint_modes(JOINTS, degrees=unit == "degrees"), inverts_in_software=True)
    own, degrees, ticks = error_units(JOINTS, ArmAnnotation("so_follower", "x", unit, SO101))
    moved = np.abs(converter.to_exact_ticks([30.0] * 6) - converter.to_exact_ticks([10.0] * 6))
    np.testing.assert_allclose(ticks.per_robot_unit * 20, moved)
    np.testing.assert_allclose(degrees.per_robot_unit, ticks.per_robot_unit * 360 / 4095)
    assert (own.per_robot_unit == 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokenizers=fast,zip"], "unknown tokenizers ['zip']; there are fast"),
        (["--folds=1"], "at least 2 folds"),
        (["--stride=0"], "at least 1"),
        (["--chunk-size=41"], "the longest has 40 frames"),
    ],
)
def test_a_comparison_that_cannot_be_says_why(dataset, tmp_path, capsys, options, message):
    assert compare(dataset, f"--output={tmp_path / 'compared'}", *options) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_codec_fits_the_recording_whose_shorter_episodes_go_further(dataset, tmp_path):
    joints = read_joints(str(dataset))
    actions, episode_index = joints.actions.copy(), joints.episode_index.copy()
    actions[1 - CHUNK :] *= 3
    episode_index[1 - CHUNK :] = 9
    longer = replace(joints, actions=actions, episode_index=episode_index)
    fit_codec(longer, tmp_path / "codec", "fast", CHUNK, {})
    ChunkCodec.load(tmp_path / "codec").check_fits(JOINTS, CHUNK, *longer.span)


def test_one_episode_cannot_be_compared_but_fitted(parquet, tmp_path, capsys):
    path = tmp_path / "one.parquet"
    pq.write_table(pq.read_table(parquet).slice(0, FRAMES), path)
    assert compare(path) == 2
    assert "expected at least 2 episodes, to fit on some and test on others, got 1" in capsys.readouterr().err
    assert fit(path, f"--output={tmp_path / 'codec'}") == 0


def test_every_episode_is_tested_once_and_never_fitted_to_at_once():
    for episodes, count in (([3, 5, 9], 5), (list(range(23)), 5), (list(range(4)), 2)):
        folds = make_folds(episodes, count)
        assert len(folds) == min(count, len(episodes))
        assert sorted(episode for fold in folds for episode in fold.test_episodes) == episodes
        for fold in folds:
            assert sorted(fold.fit_episodes + fold.test_episodes) == episodes
            assert fold.fit_episodes


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
        ({"observation.state": [[0.0] * 6] * 3 + [[float("nan")] * 6]}, "observation.state is not finite"),
        ({"episode_index": [0, 1, 0, 1]}, "must follow each other"),
        ({}, "none of the joints"),
    ],
)
def test_a_parquet_file_of_something_else_is_refused(tmp_path, capsys, columns, message):
    path = write_parquet(tmp_path / "joints.parquet", **columns)
    assert tokenizer("fit", path, "--chunk-size=2", f"--output={tmp_path / 'codec'}") == 2
    assert message in capsys.readouterr().err


def test_what_is_no_recording_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no parquet")
    assert fit(tmp_path / "notes.txt", f"--output={tmp_path / 'codec'}") == 2
    assert fit(tmp_path / "nowhere", f"--output={tmp_path / 'codec'}") == 2
    said = capsys.readouterr().err
    assert "no parquet file with the columns" in said
    assert "no data set" in said


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


REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "so101_teleop" / "joints.parquet"


@pytest.mark.skipif(not REAL.is_file(), reason="needs recorded motion of an SO-101, which is not part of the project")
def test_real_motion_costs_what_is_known_of_it(tmp_path):
    """FAST at scale 10, chunks of 50 steps: about 30 tokens, mean error 0.30."""
    assert tokenizer("compare", REAL, "--tokenizers=fast", "--stride=5", f"--output={tmp_path / 'out'}") == 0
    content = json.loads((tmp_path / "out" / "compare.json").read_text())
    scale_10 = content["tokenizers"][1]
    assert scale_10["options"] == {"scale": 10}
    assert 24 < scale_10["tokens_mean"] < 40
    assert 0.25 < scale_10["error_mean"] < 0.40
