"""Where a data set lies, and which of its features hold joints."""

import json
import shutil
from pathlib import Path

import pytest

from lerobot_vla_plugin import joint_dataset
from lerobot_vla_plugin.joint_dataset import JointFeature, find_dataset, joint_features, read_info


def features_of(dataset: Path, tmp_path: Path, **features: object) -> list[JointFeature]:
    """Joint features of a data set whose metadata is changed."""
    info = json.loads((dataset / "meta" / "info.json").read_text())
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text(json.dumps({**info, "features": features}))
    return joint_features(read_info(tmp_path))


def vector(names: object, dtype: str = "float32", shape: tuple[int, ...] | None = None) -> dict:
    return {"dtype": dtype, "shape": shape or (len(names),), "names": names}


def test_joints_are_found_by_name_in_the_data_set_order(dataset_root, tmp_path):
    action = vector(["gripper.pos", "base.vel", "elbow_flex.pos"])
    assert features_of(dataset_root, tmp_path, action=action, other=vector(["gripper.pos"])) == [
        JointFeature("action", 3, {"gripper": 0, "elbow_flex": 2})
    ]


@pytest.mark.parametrize(
    "action",
    [
        vector({"motors": ["main_gripper"]}),
        vector(["gripper.pos"], dtype="int64"),
        vector(["gripper.pos"], shape=(2,)),
        vector(["gripper.pos"], shape=(1, 1)),
        {"dtype": "float32", "shape": (1,), "names": None},
    ],
)
def test_what_is_no_vector_of_named_floats_is_refused(dataset_root, tmp_path, action):
    with pytest.raises(ValueError, match="action must be a vector of floats with a name for each entry"):
        features_of(dataset_root, tmp_path, action=action)


def test_a_data_set_without_joints_is_refused(dataset_root, tmp_path):
    with pytest.raises(ValueError, match=r"no joint positions.*'action'"):
        features_of(dataset_root, tmp_path, action=vector(["base.vel"]))


def test_a_data_set_is_found_where_lerobot_keeps_it(dataset_root, tmp_path, monkeypatch):
    shutil.copytree(dataset_root, tmp_path / "me" / "cube")
    monkeypatch.setattr(joint_dataset, "HF_LEROBOT_HOME", tmp_path)
    assert find_dataset("me/cube") == tmp_path / "me" / "cube"
    assert find_dataset("me/cube", dataset_root) == dataset_root
    assert find_dataset(str(dataset_root)) == dataset_root
    with pytest.raises(FileNotFoundError, match=f"is missing in me/none and in {tmp_path / 'me' / 'none'}. Name its"):
        find_dataset("me/none")
    with pytest.raises(FileNotFoundError, match=f"is missing in {tmp_path}. Name its"):
        find_dataset("me/cube", tmp_path)


def test_a_downloaded_snapshot_is_found(dataset_root, tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    repository = cache / "datasets--me--cube"
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(dataset_root, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "v3.0").write_text("0" * 40)
    monkeypatch.setattr(joint_dataset, "HF_LEROBOT_HUB_CACHE", cache)
    assert find_dataset("me/cube") == snapshot
