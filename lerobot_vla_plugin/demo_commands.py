"""What `lerobot-vla demo` runs: command lines of LeRobot and of this package."""

from .child_process import LeRobotCommand
from .demo_recipe import DemoFolder, Recipe
from .twin.cameras import CameraConfig
from .twin.rounds import RESET_S
from .twin.scenes import TASKS, draw_layout
from .twin.so101 import SO101Twin, TwinConfig

_REPO_ID = "local/touch_red_cube"
_TASK, _COLOR = "reach-touch", "red"
_PICTURE_PX = 128  # square, as the small backbone takes them: no pixel is spent on padding
_CAMERA_FPS_SURPLUS = 5  # a little faster than the recording, so that no picture is recorded twice
# Seeds of three sets of scenes that have none in common.
_RECORDED_SEED, _EVALUATED_SEED = 50_000, 1000
# One thread for the matrices leaves the second core to the data loader; two threads wait for each other when the
# cores are shared, which made this small model up to 20 times slower.
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def make_twin(folder: DemoFolder, recipe: Recipe, seed: int, *, lock_step: bool) -> SO101Twin:
    """A twin with port names of its own, so that one that runs already is not in the way.

    Args:
        folder: Where the port names lie.
        recipe: Decides the rate of the cameras.
        seed: Of the demo.
        lock_step: Whether time passes as fast as the computer can, for an evaluation.
    """
    cameras = CameraConfig(width=_PICTURE_PX, height=_PICTURE_PX, fps=recipe.fps + _CAMERA_FPS_SURPLUS)
    first = seed + _RECORDED_SEED
    return SO101Twin(TwinConfig(first, cameras, folder.root / "ports", task=_TASK, lock_step=lock_step, color=_COLOR))


def record_command(twin: SO101Twin, folder: DemoFolder, recipe: Recipe) -> LeRobotCommand:
    """`lerobot-record` on a running twin.

    Args:
        twin: The twin.
        folder: Where the data set goes.
        recipe: How much to record.
    """
    return LeRobotCommand(
        "lerobot-record",
        [
            *twin.robot_arguments(own_types=True),
            *twin.teleop_arguments(own_types=True),
            f"--dataset.repo_id={_REPO_ID}_recorded",
            "--dataset.no_stamp=true",
            f"--dataset.root={folder.recorded}",
            f"--dataset.single_task={draw_layout(_TASK, 0, _COLOR).instruction}",
            f"--dataset.fps={recipe.fps}",
            f"--dataset.num_episodes={recipe.recorded}",
            f"--dataset.episode_time_s={TASKS[_TASK].episode_s:g}",
            f"--dataset.reset_time_s={RESET_S:g}",  # the person leads the arm back, and puts the cubes elsewhere
            "--dataset.push_to_hub=false",
            "--dataset.rgb_encoder.vcodec=h264",
            "--dataset.streaming_encoding=true",
            "--dataset.encoder_threads=1",
            "--play_sounds=false",
            "--display_data=false",
        ],
        _ENVIRONMENT,
    )


def recording_s(recipe: Recipe) -> float:
    """How long `lerobot-record` records, in [s].

    Args:
        recipe: How much to record.
    """
    return recipe.recorded * TASKS[_TASK].episode_s + (recipe.recorded - 1) * RESET_S


def annotate_command(twin: SO101Twin, folder: DemoFolder) -> LeRobotCommand:
    """`lerobot-vla annotate` of what was recorded, so that its unit and calibration are known.

    Args:
        twin: The twin that was recorded.
        folder: Where the data set lies.
    """
    arm = [option for option in twin.robot_arguments(own_types=True, with_cameras=False) if "port=" not in option]
    return LeRobotCommand("lerobot-vla", ["annotate", str(folder.recorded), *arm], _ENVIRONMENT)


def demonstrate_command(folder: DemoFolder, recipe: Recipe, seed: int) -> LeRobotCommand:
    """`lerobot-vla record-twin`: the same data set as of `lerobot-record`, faster.

    Args:
        folder: Where the data set goes.
        recipe: How much to record.
        seed: Of the first scene.
    """
    options = [
        f"--output={folder.demonstrations}",
        f"--repo-id={_REPO_ID}",
        f"--tasks={_TASK}",
        f"--color={_COLOR}",
        f"--episodes={recipe.demonstrations}",
        f"--fps={recipe.fps}",
        f"--width={_PICTURE_PX}",
        f"--height={_PICTURE_PX}",
        f"--first-seed={seed + 2 * _RECORDED_SEED}",
    ]
    return LeRobotCommand("lerobot-vla", ["record-twin", *options], _ENVIRONMENT)


def tokenizer_command(folder: DemoFolder, recipe: Recipe) -> LeRobotCommand:
    """`lerobot-vla tokenizer fit` on the data set.

    Args:
        folder: Where the data set lies and the tokenizer goes.
        recipe: Which tokenizer, and of which chunks.
    """
    where = [str(folder.demonstrations), f"--output={folder.action_tokenizer}", f"--chunk-size={recipe.chunk_size}"]
    return LeRobotCommand("lerobot-vla", ["tokenizer", "fit", *where, *recipe.tokenizer], _ENVIRONMENT)


def train_command(folder: DemoFolder, recipe: Recipe, policy: str, seed: int) -> LeRobotCommand:
    """`lerobot-train` from scratch on the demonstrations.

    Args:
        folder: Where the data set lies and the checkpoint goes.
        recipe: How long to train.
        policy: Type of the policy.
        seed: Of weights and data order.
    """
    tokens = [f"--policy.action_tokenizer_path={folder.action_tokenizer}"] if recipe.tokenizer else []
    return LeRobotCommand(
        "lerobot-train",
        [
            f"--dataset.repo_id={_REPO_ID}",
            f"--dataset.root={folder.demonstrations}",
            "--dataset.video_backend=pyav",
            "--dataset.return_uint8=true",
            f"--policy.type={policy}",
            "--policy.vlm_model_name=small",
            # As in configs/train_twin.yaml: so few scenes are learnt by heart otherwise.
            "--policy.color_jitter=0.15",
            "--policy.device=cpu",
            "--policy.push_to_hub=false",
            f"--policy.chunk_size={recipe.chunk_size}",
            f"--policy.n_action_steps={recipe.n_action_steps}",
            *tokens,
            *recipe.options,
            f"--policy.optimizer_lr={recipe.learning_rate}",
            "--policy.optimizer_weight_decay=0.01",
            "--policy.optimizer_grad_clip_norm=1.0",
            f"--policy.scheduler_warmup_steps={recipe.steps // 20}",
            f"--policy.scheduler_decay_steps={recipe.steps}",
            f"--policy.scheduler_decay_lr={recipe.learning_rate / 100}",
            f"--batch_size={recipe.batch_size}",
            f"--steps={recipe.steps}",
            "--num_workers=2",  # reading a sample costs twice as much as training on it
            "--log_freq=50",
            "--save_freq=0",
            f"--seed={seed}",
            f"--output_dir={folder.training}",
        ],
        _ENVIRONMENT,
    )


def evaluate_command(twin: SO101Twin, folder: DemoFolder, recipe: Recipe, seed: int) -> LeRobotCommand:
    """`lerobot-eval` of the checkpoint on a running twin, which lays the scenes and judges.

    Args:
        twin: The twin.
        folder: Where the checkpoint lies, and the report goes.
        recipe: How many scenes.
        seed: Of the demo.
    """
    arm = [option.replace("--robot.", "--env.robot.", 1) for option in twin.robot_arguments(own_types=True)]
    return LeRobotCommand(
        "lerobot-eval",
        [
            f"--policy.path={folder.checkpoint}",
            "--env.type=physical_arm",
            *arm,
            f"--env.twin={twin.config.directory}",
            f"--env.scene={_TASK}",
            f"--env.color={_COLOR}",
            f"--env.fps={recipe.fps}",
            f"--env.report_dir={folder.evaluation}",
            f"--eval.n_episodes={recipe.scenes}",
            "--eval.batch_size=1",
            f"--seed={seed + _EVALUATED_SEED}",
            f"--output_dir={folder.root / 'lerobot_eval'}",
        ],
        _ENVIRONMENT,
    )


def report_command(folder: DemoFolder) -> LeRobotCommand:
    """`lerobot-vla eval-report` of the evaluation.

    Args:
        folder: Where its report lies.
    """
    return LeRobotCommand(
        "lerobot-vla", ["eval-report", str(folder.evaluation), f"--output={folder.report_html}"], _ENVIRONMENT
    )
