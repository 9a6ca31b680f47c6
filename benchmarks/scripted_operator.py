"""How often the scripted person solves the twin's tasks, and how fast the world runs meanwhile.

    OMP_NUM_THREADS=1 python benchmarks/scripted_operator.py
    OMP_NUM_THREADS=1 python benchmarks/scripted_operator.py --seeds 200 --tasks pick-place --fps 10

Each seed is another scene: places, color, light. The person leads the arm as when it is recorded: in whole ticks of the
leader, through the guard, `--fps` times a second. Failures are listed with their seed and with what was done to which
cube. The intervals are Wilson's, 95 %. Planning counts as part of the time; pictures are not drawn.

Measured with MuJoCo 3.17 and mink 1.3 on one thread of a busy 2-core machine, `--seeds 100 --fps 10`, `speed` in
simulated seconds a real one:

    10 Hz          success     rate         interval     length     speed
    reach-touch    100/100   100.0%   96.3% - 100.0%      3.2 s      30 x
    pick-lift      100/100   100.0%   96.3% - 100.0%      4.5 s      30 x
    pick-place       96/100    96.0%    90.2% - 98.4%      5.7 s      31 x

With `--arm koch` 100, 98 and 98. Where the SO-101 fails, one of its wide open jaws comes down on the bin, seldom on the
other cube. Jaws that open little wider than a cube do so less often, but taught policies less.
"""

import argparse
import time
from dataclasses import dataclass, field

from scipy.stats import binomtest

from lerobot_vla_plugin.demonstrations import Demonstrator
from lerobot_vla_plugin.envs.simulated_arm import SimulatedArm, SimulatedLeader
from lerobot_vla_plugin.twin.arm_models import ARM_MODELS
from lerobot_vla_plugin.twin.judge import Verdict
from lerobot_vla_plugin.twin.scenes import TASKS
from lerobot_vla_plugin.twin.world import World


@dataclass
class Result:
    """Attempts at one task."""

    verdicts: dict[int, Verdict] = field(default_factory=dict)
    simulated_s: float = 0.0
    real_s: float = 0.0

    def line(self, task: str) -> str:
        """One row of the table."""
        trials, successes = len(self.verdicts), sum(verdict.success for verdict in self.verdicts.values())
        low, high = binomtest(successes, trials).proportion_ci(method="wilson")
        counts, interval = f"{successes}/{trials}", f"{low:.1%} - {high:.1%}"
        mean_s = self.simulated_s / trials
        return f"{task:12s} {counts:>9s} {successes / trials:8.1%} {interval:>16s} {mean_s:8.1f} s {self.speed:7.0f} x"

    @property
    def speed(self) -> float:
        """Simulated seconds a real second."""
        return self.simulated_s / self.real_s

    def failures(self) -> list[str]:
        """What happened instead of success."""
        return [
            f"    seed {seed}: {verdict.layout.instruction} "
            + ", ".join(f"{goal}: {' and '.join(colors) or 'none'}" for goal, colors in verdict.done.items())
            for seed, verdict in self.verdicts.items()
            if not verdict.success
        ]


def measure(task: str, seeds: range, demonstrator: Demonstrator, world: World) -> Result:
    """Attempt a task once a seed."""
    result = Result()
    for seed in seeds:
        start_s = time.perf_counter()
        result.verdicts[seed] = demonstrator.demonstrate(task, seed).verdict
        result.real_s += time.perf_counter() - start_s
        result.simulated_s += world.time_s
    return result


def main() -> None:
    """Print a table for each rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=60, help="attempts at each task")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--fps", nargs="+", type=int, default=[10, 15, 30], help="goals a second")
    parser.add_argument("--arm", choices=list(ARM_MODELS), default="so101")
    arguments = parser.parse_args()
    world, degrees = World(ARM_MODELS[arguments.arm], visual=False), arguments.arm == "so101"  # LeRobot's default units
    arm = SimulatedArm(world, use_degrees=degrees)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    for fps in arguments.fps:
        demonstrator = Demonstrator(arm, SimulatedLeader(arm, use_degrees=degrees), None, fps)
        print(f"{f'{fps} Hz':12s} {'success':>9s} {'rate':>8s} {'interval':>16s} {'length':>10s} {'speed':>9s}")
        for task in arguments.tasks:
            result = measure(task, seeds, demonstrator, world)
            print(result.line(task), *result.failures(), sep="\n", flush=True)


if __name__ == "__main__":
    main()
