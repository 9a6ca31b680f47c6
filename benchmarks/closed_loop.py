"""How often a policy solves the twin's tasks on scenes that it has not seen, and whether it looks and listens.

    python benchmarks/closed_loop.py --policy outputs/train/checkpoints/last/pretrained_model --output outputs/loop
    python benchmarks/closed_loop.py --policy ... --output ... --rows normal --episodes 10 --tasks pick-lift --strip

Any policy of LeRobot's, loaded and run by the functions of `lerobot-eval`, in the environment `so101_twin` in its
process. The rows:

    normal       as it was trained
    shuffled     the pictures show another scene around the arm as it stands: whoever looks fails
    other        the instruction names the other cube: success is to take that one, so whoever does not listen fails

The columns say which cube was taken first: the one that was named to the policy, or the other one. `time` is the median
time to success, `cost` the computing time of an episode. Intervals are Wilson's, 95 %. Each row leaves a report under
--output, for `lerobot-vla eval-report` and `plot`. Pictures have the size of the training data. On one thread of a
2-core machine that did other work, episodes of a policy that never succeeds (12 s) took 2.8 s with a tiny `vla_flow`,
of which 1.8 s were the world and its pictures.
"""

import argparse
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.envs import make_env_pre_post_processors
from lerobot.policies import make_policy, make_pre_post_processors
from lerobot.scripts.lerobot_eval import eval_policy_all
from lerobot.utils.import_utils import register_third_party_plugins
from lerobot.utils.random_utils import set_seed

from lerobot_vla_plugin.envs.config_so101_twin import SO101TwinConfig
from lerobot_vla_plugin.evaluation_facts import Evaluation, choose_episodes, load_evaluations
from lerobot_vla_plugin.evaluation_picture import plot_evaluation
from lerobot_vla_plugin.text_table import align
from lerobot_vla_plugin.twin.scenes import TASKS

ROWS = {"normal": {}, "shuffled": {"shuffled_images": True}, "other": {"instruction": "other"}}


class ClosedLoop:
    """A loaded policy with its processors.

    Args:
        path: Folder of the checkpoint.
        device: Where it runs.
    """

    def __init__(self, path: Path, device: str) -> None:
        self.config = PreTrainedConfig.from_pretrained(path, cli_overrides=[f"--device={device}"])
        self.config.pretrained_path = path
        shapes = {key: feature.shape for key, feature in self.config.image_features.items()}
        self._cameras = [key.rpartition(".")[2] for key in shapes]
        _, self._height, self._width = next(iter(shapes.values()))
        self._policy = make_policy(self.config, env_cfg=self.environment(["pick-lift"]))
        overrides = {"device_processor": {"device": str(self.config.device)}}
        self._processors = make_pre_post_processors(
            policy_cfg=self.config, pretrained_path=str(path), preprocessor_overrides=overrides
        )

    def environment(self, tasks: list[str], **options) -> SO101TwinConfig:
        """The environment with the cameras that the policy knows."""
        return SO101TwinConfig(
            task=",".join(tasks), width=self._width, height=self._height, cameras=self._cameras, **options
        )

    def run(self, environment: SO101TwinConfig, seed: int, episodes: int, batch: int) -> None:
        """Run every task on the scenes of the seeds from one on."""
        set_seed(seed)
        env_preprocessor, env_postprocessor = make_env_pre_post_processors(environment, self.config)
        preprocessor, postprocessor = self._processors
        with torch.no_grad():
            eval_policy_all(
                environment.create_envs(batch),
                self._policy,
                env_preprocessor,
                env_postprocessor,
                preprocessor,
                postprocessor,
                n_episodes=episodes,
                start_seed=seed,
            )


def table(row: str, evaluation: Evaluation, seconds: float) -> Iterator[list[str]]:
    """Lines of one row: each task, and all together where there are several."""
    summary = evaluation.summary
    groups = summary["per_task"] | ({"all": summary["overall"]} if len(summary["per_task"]) > 1 else {})
    for task, figures in groups.items():
        low, high = figures["wilson_95"]
        taken, time_s = figures["taken"], figures["median_time_to_success_s"]
        yield [
            f"{row} {task}",
            f"{figures['successes']}/{figures['n']}",
            f"{figures['success']:.1%}",
            f"{low:.1%} - {high:.1%}",
            *(str(taken.get(what, 0)) for what in ("named", "other", "none")),
            "-" if time_s is None else f"{time_s:.1f} s",
            f"{seconds / len(evaluation.episodes):.2f} s",
        ]


def parse() -> argparse.Namespace:
    """Options of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="folder of a checkpoint's pretrained_model")
    parser.add_argument("--output", type=Path, required=True, help="new folder of the reports")
    parser.add_argument("--seed", type=int, default=1000, help="seed of the first scene")
    parser.add_argument("--episodes", type=int, default=30, help="scenes of each task")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=["pick-lift", "pick-place"])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--fps", type=int, default=10, help="actions a second, as in the training data")
    parser.add_argument("--batch", type=int, default=10, help="worlds side by side; should divide the episodes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--strip", action="store_true", help="draw failures of each row into failures.png")
    return parser.parse_args()


def main() -> None:
    """Evaluate, and print the table."""
    arguments = parse()
    logging.basicConfig(level=logging.WARNING)
    register_third_party_plugins()
    try:
        evaluate(arguments)
    except (ValueError, OSError) as error:  # a checkpoint of something else, a folder that has a report already
        sys.exit(f"closed_loop.py: {error}")


def evaluate(arguments: argparse.Namespace) -> None:
    """Run the rows."""
    loop = ClosedLoop(arguments.policy, arguments.device)
    lines = [["row", "success", "rate", "interval", "took named", "took other", "none", "time", "cost"]]
    for row in arguments.rows:
        report, start_s = arguments.output / row, time.perf_counter()
        environment = loop.environment(arguments.tasks, fps=arguments.fps, report_dir=report, **ROWS[row])
        loop.run(environment, arguments.seed, arguments.episodes, min(arguments.batch, arguments.episodes))
        seconds = time.perf_counter() - start_s
        (evaluation,) = load_evaluations([report])
        lines += table(row, evaluation, seconds)
        if arguments.strip:
            plot_evaluation(evaluation, choose_episodes(evaluation, None), report / "failures.png")
    print(f"{arguments.policy}: seeds from {arguments.seed}, {arguments.fps} Hz", *align(lines), sep="\n")


if __name__ == "__main__":
    main()
