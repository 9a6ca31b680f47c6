"""The shipped YAML files, each run by LeRobot's own command on an emulated arm, from recording to evaluation."""

import importlib
import json
import runpy
import sys
from pathlib import Path

import pytest
import yaml
from conftest import last_checkpoint

from lerobot_vla_cli.main import main as lerobot_vla
from lerobot_vla_plugin.envs.episode_report import read_episodes
from lerobot_vla_plugin.twin.arm_twin import ArmTwin, TwinConfig
from lerobot_vla_plugin.twin.cameras import CameraConfig
from lerobot_vla_plugin.twin.koch import KochTwin
from lerobot_vla_plugin.twin.so101 import SO101Twin

REPOSITORY = Path(__file__).parent.parent
CONFIGS = REPOSITORY / "configs"
TWINS = {"so101": SO101Twin, "koch": KochTwin}
TWIN_RECIPES = {"train_twin.yaml", "train_twin_fast.yaml"}
COMPARED = {"train_twin_act.yaml", "train_twin_smolvla.yaml"}  # LeRobot's own policies on the same demonstrations


@pytest.fixture
def run_lerobot(monkeypatch, tmp_path):
    """Run one of LeRobot's commands with a shipped file in this process, because every import costs seconds."""

    def run(command: str, config: str, twin: ArmTwin, *options: str) -> None:
        module = importlib.import_module(f"lerobot.scripts.lerobot_{command}")
        path = with_cameras_of(twin, CONFIGS / config, tmp_path / config)
        monkeypatch.setattr(sys, "argv", [f"lerobot-{command}", f"--config_path={path}", *options])
        module.main()

    return run


def with_cameras_of(twin: ArmTwin, path: Path, copy: Path) -> Path:
    """A copy of a file with the twin's cameras, which the command line could only mix with those of the file."""
    config = yaml.safe_load(path.read_text())
    robot = config.get("robot") or config.get("env", {}).get("robot")
    if robot:
        option = next(option for option in twin.robot_arguments() if option.startswith("--robot.cameras="))
        cameras = yaml.safe_load(option.removeprefix("--robot.cameras="))
        assert cameras.keys() == robot["cameras"].keys()
        robot["cameras"] = cameras
    copy.write_text(yaml.safe_dump(config))
    return copy


def test_every_file_is_tested():
    jobs = ("record_{}", "rollout_{}", "eval_{}", "train_{}", "train_{}_fast")
    tested = {f"{job.format(arm)}.yaml" for job in jobs for arm in TWINS} | TWIN_RECIPES | COMPARED
    assert {path.name for path in CONFIGS.iterdir()} == tested


# Each arm with another policy: all four take a minute.
@pytest.mark.parametrize(
    ("arm", "job"),
    [
        ("so101", "train_{}_fast"),
        ("koch", "train_{}"),
        pytest.param("so101", "train_{}", marks=pytest.mark.slow),
        pytest.param("koch", "train_{}_fast", marks=pytest.mark.slow),
    ],
)
def test_an_arm_from_recording_to_evaluation(arm, job, run_lerobot, typist, tmp_path):
    """What differs from the files is what a twin cannot have: the ports, the kind of camera, and hours of time."""
    twin_config = TwinConfig(cameras=CameraConfig(width=96, height=96), directory=tmp_path / "ports")
    data = ["--dataset.repo_id=local/test", f"--dataset.root={tmp_path / 'data'}"]
    with TWINS[arm](twin_config) as twin:
        robot = twin.robot_arguments(own_types=True, with_cameras=False)
        run_lerobot(
            "record", f"record_{arm}.yaml", twin, *robot, *twin.teleop_arguments(own_types=True), *data,
            "--dataset.num_episodes=1", "--dataset.episode_time_s=3", "--dataset.reset_time_s=0",
            "--dataset.rgb_encoder.vcodec=h264", "--play_sounds=false",
        )  # fmt: skip
        assert not twin.torque_enabled()
        named = [option for option in robot if option.split("=")[0] in ("--robot.id", "--robot.calibration_dir")]
        assert lerobot_vla(["annotate", str(tmp_path / "data"), f"--robot.type={arm}_vla_follower", *named]) == 0
        train_and_roll_out(f"{job.format(arm)}.yaml", arm, twin, run_lerobot, robot, data, tmp_path / "run")
        evaluate(arm, twin, run_lerobot, robot, tmp_path)


def train_and_roll_out(config, arm, twin, run_lerobot, robot, data, folder):
    run_lerobot(
        "train", config, twin, *data, "--dataset.video_backend=pyav", "--policy.init_from=null",
        "--policy.vlm_model_name=tiny", "--policy.device=cpu", "--policy.chunk_size=10", "--steps=1",
        "--batch_size=2", "--num_workers=0", f"--output_dir={folder}",
    )  # fmt: skip
    writes_before = len(twin.follower.goal_writes())
    run_lerobot(
        "rollout", f"rollout_{arm}.yaml", twin, *robot, f"--policy.path={last_checkpoint(folder)}",
        "--duration=2", "--play_sounds=false",
    )  # fmt: skip
    assert len(twin.follower.goal_writes()) > writes_before + 20
    assert twin.follower.goal_statistics().goals_in_range
    assert not twin.torque_enabled()


def evaluate(arm, twin, run_lerobot, robot, folder):
    run_lerobot(
        "eval", f"eval_{arm}.yaml", twin, *(option.replace("--robot.", "--env.robot.") for option in robot),
        f"--policy.path={last_checkpoint(folder / 'run')}", f"--env.report_dir={folder / 'report'}",
        f"--output_dir={folder / 'eval'}", "--eval.n_episodes=1",
    )  # fmt: skip
    assert [episode.success for episode in read_episodes(folder / "report")] == [True]
    assert not twin.torque_enabled()


@pytest.fixture(scope="module")
def twin_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twin") / "data"
    options = ["--episodes", "1", "--tasks", "pick-lift", "--cameras", "wrist"]
    assert lerobot_vla(["record-twin", "--output", str(folder), *options]) == 0
    return folder


@pytest.mark.parametrize("config", sorted(TWIN_RECIPES))
def test_a_recipe_of_the_twin_trains_and_its_colors_vary(config, twin_data, monkeypatch, tmp_path):
    written = yaml.safe_load((CONFIGS / config).read_text())
    options = []
    if "action_tokenizer_path" in written["policy"]:  # one episode is too little to fit the one of the recipe
        options.append("--policy.action_tokenizer_path=null")
    trained = train_one_step(config, twin_data, monkeypatch, tmp_path / "run", *options)
    assert trained["policy"]["color_jitter"] == written["policy"]["color_jitter"] > 0
    assert trained["policy"]["finish_chunk_when_still"] == written["policy"]["finish_chunk_when_still"] > 0
    assert written["steps"] == written["policy"]["scheduler_decay_steps"]


def test_what_the_recipes_are_compared_with_trains_on_the_same_data(twin_data, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["small_smolvla.py", str(tmp_path / "vlm")])
    runpy.run_path(str(REPOSITORY / "benchmarks" / "small_smolvla.py"), run_name="__main__")
    ours, shared = yaml.safe_load((CONFIGS / "train_twin.yaml").read_text()), ("dataset", "batch_size", "seed")
    for config in sorted(COMPARED):
        written = yaml.safe_load((CONFIGS / config).read_text())
        assert {key: written[key] for key in shared} == {key: ours[key] for key in shared}
        options = [f"--policy.vlm_model_name={tmp_path / 'vlm'}"] if "smolvla" in config else []
        trained = train_one_step(config, twin_data, monkeypatch, tmp_path / config, *options)
        assert trained["policy"]["type"] == written["policy"]["type"]


def train_one_step(config: str, data: Path, monkeypatch, output: Path, *options: str) -> dict:
    """Train a shipped recipe for one step; what the checkpoint says of its training."""
    module = importlib.import_module("lerobot.scripts.lerobot_train")
    own = [f"--dataset.root={data}", "--steps=1", "--batch_size=2", f"--output_dir={output}"]
    monkeypatch.setattr(sys, "argv", ["lerobot-train", f"--config_path={CONFIGS / config}", *own, *options])
    module.main()
    return json.loads((last_checkpoint(output) / "train_config.json").read_text())
