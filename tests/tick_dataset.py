"""A recording of known ticks, with all that a LeRobot data set can hold: what the tests of retargeting start from."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from conftest import JOINTS

from lerobot_vla_cli.main import main
from lerobot_vla_plugin.arms.annotation import ArmAnnotation, write_annotation
from lerobot_vla_plugin.arms.calibration import example_calibration
from lerobot_vla_plugin.arms.joints import JointConverter, joint_modes

SO101 = example_calibration("so_follower", "so101_follower")
IN_DEGREES = ArmAnnotation("so_follower", "so101_follower", "degrees", SO101)
IN_PERCENT = replace(IN_DEGREES, joint_unit="percent")
# A recording's own order, and an entry that is no joint.
NAMES = [f"{joint}.pos" for joint in reversed(JOINTS)]
STATE_NAMES = [*NAMES[:3], "base.vel", *NAMES[3:]]
STATE_COLUMNS = [0, 1, 2, 4, 5, 6]
VIDEO = "observation.images.front"
EPISODES, FRAMES = 3, 8


def converter(arm: ArmAnnotation) -> JointConverter:
    """Conversion of the recording's joints, in its order."""
    modes = joint_modes(reversed(JOINTS), degrees=arm.joint_unit == "degrees")
    return JointConverter(arm.calibration, modes, inverts_in_software=arm.robot_type == "so_follower")


def random_ticks(seed: int) -> np.ndarray:
    """Positions inside the calibrated range, both ends among them; shape (episodes * frames, joints)."""
    joints = [SO101[joint] for joint in reversed(JOINTS)]
    low, high = [joint.range_min for joint in joints], [joint.range_max for joint in joints]
    between = np.random.default_rng(seed).integers(low, high, (EPISODES * FRAMES - 2, len(joints)), endpoint=True)
    return np.concatenate([[low], between, [high]])


STATE_TICKS, ACTION_TICKS = random_ticks(0), random_ticks(1)


def record(root: Path) -> None:
    """Record the ticks in degrees with LeRobot's writer: a video, several parquet files, a feature of another kind."""
    from lerobot.datasets import LeRobotDataset

    features = {
        "observation.state": {"dtype": "float32", "shape": (7,), "names": STATE_NAMES},
        "action": {"dtype": "float32", "shape": (6,), "names": NAMES},
        "observation.leader": {"dtype": "float32", "shape": (6,), "names": NAMES},
        VIDEO: {"dtype": "video", "shape": (64, 64, 3), "names": ["height", "width", "channels"]},
    }
    dataset = LeRobotDataset.create("tests/ticks", 10, features, root=root, robot_type="so_follower")
    dataset.meta.update_chunk_settings(data_files_size_in_mb=0.001)
    state = converter(IN_DEGREES).to_units(STATE_TICKS).astype(np.float32)
    action = converter(IN_DEGREES).to_units(ACTION_TICKS).astype(np.float32)
    for index in range(EPISODES * FRAMES):
        dataset.add_frame(
            {
                "observation.state": np.insert(state[index], 3, index),
                "action": action[index],
                "observation.leader": action[index],
                VIDEO: np.full((64, 64, 3), 10 * index, dtype=np.uint8),
                "task": "Touch the red cube." if index < FRAMES else "Wave.",
            }
        )
        if index % FRAMES == FRAMES - 1:
            dataset.save_episode()
    dataset.finalize()
    (root / "README.md").write_text("# My data")
    (root / ".cache" / "huggingface" / "download").mkdir(parents=True)
    (root / ".cache" / "huggingface" / "download" / "info.metadata").write_text("hub")
    write_annotation(root, IN_DEGREES)


def load(root: Path):
    """Open with LeRobot."""
    from lerobot.datasets import LeRobotDataset

    return LeRobotDataset("tests/ticks", root=root)


def frames(root: Path, key: str) -> np.ndarray:
    """Vectors of all frames as they lie in the parquet files."""
    tables = [pq.read_table(path, columns=[key]) for path in sorted(root.glob("data/*/*.parquet"))]
    return np.concatenate([np.stack(table.to_pandas()[key]) for table in tables])


def digests(root: Path) -> dict[str, str]:
    """Hash of every file, by its path in the data set."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run_retarget(*arguments: object) -> int:
    """Run `lerobot-vla retarget`; returns its exit code."""
    return main(["retarget", *map(str, arguments)])
