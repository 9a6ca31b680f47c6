"""`lerobot-vla tokenizer`: fit a codec for training, and compare tokenizers on episodes that were not fitted to."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import JOINTS, write_dataset

from lerobot_vla_cli.main import main
from lerobot_vla_plugin.action_tokenizers.chunk_codec import ChunkCodec
from lerobot_vla_plugin.arms.annotation import ArmAnnotation, write_annotation
from lerobot_vla_plugin.arms.calibration import example_calibration, example_calibration_dir
from lerobot_vla_plugin.tokenizer_fit import FIT_DEFAULTS
from lerobot_vla_plugin.tokenizer_joints import read_joints
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
    assert bool(codec.scaling.relative_joints) == (kind != "vq" and "--no-relative" not in options)
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
    a, b = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "a", tmp_path / "b")
    )
    assert len(a) >= 4
    assert a == b


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


def test_help_names_what_is_left_out(capsys):
    for command in ("fit", "compare"):
        with pytest.raises(SystemExit):
            tokenizer(command, "--help")
    said = " ".join(capsys.readouterr().out.split())
    for kind, options in FIT_DEFAULTS.items():
        assert f"--kind={kind}: if left out: " + ", ".join(f"{name}={value}" for name, value in options.items()) in said
    stride = said[said.rindex("--stride STRIDE") : said.rindex("--calibration")]
    assert "if left out, 1, and in recordings of more than 20,000 frames" in stride
    assert "None" not in stride


def test_one_episode_cannot_be_compared_but_fitted(parquet, tmp_path, capsys):
    path = tmp_path / "one.parquet"
    pq.write_table(pq.read_table(parquet).slice(0, FRAMES), path)
    assert compare(path) == 2
    assert "expected at least 2 episodes of 8 frames" in capsys.readouterr().err
    assert fit(path, f"--output={tmp_path / 'codec'}") == 0


def test_what_is_no_recording_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no parquet")
    assert fit(tmp_path / "notes.txt", f"--output={tmp_path / 'codec'}") == 2
    assert fit(tmp_path / "nowhere", f"--output={tmp_path / 'codec'}") == 2
    said = capsys.readouterr().err
    assert "no parquet file with the columns" in said
    assert "no data set" in said


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
