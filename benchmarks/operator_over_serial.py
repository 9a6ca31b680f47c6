"""How often the scripted person solves the twin's tasks through LeRobot, which reads the leader and sends the follower.

    OMP_NUM_THREADS=1 python benchmarks/operator_over_serial.py
    OMP_NUM_THREADS=1 python benchmarks/operator_over_serial.py --seeds 3 --fps 30 10 --cameras

Both are of this package's types, with the guard's limits as they are by default. The twin runs in lock-step, so success
does not depend on the computer; `a step` is what one period of LeRobot's loop takes here, in real time: reading the
leader and the follower, sending goals, a reply that says that they have arrived, the physics, and with `--cameras` the
pictures of both cameras (128 x 96), which the loop waits for.

Measured on a 2-core machine, busy with other work:

    task            rate  success         interval     length      a step    with cameras
    reach-touch    30 Hz    20/20   83.9% - 100.0%      2.2 s      5.9 ms         23.3 ms
    reach-touch    15 Hz    20/20   83.9% - 100.0%      2.2 s      6.5 ms
    reach-touch    10 Hz    20/20   83.9% - 100.0%      2.3 s      7.4 ms         26.8 ms
    pick-lift      30 Hz    20/20   83.9% - 100.0%      3.4 s      5.8 ms         20.2 ms
    pick-lift      15 Hz    20/20   83.9% - 100.0%      3.5 s      6.5 ms
    pick-lift      10 Hz    20/20   83.9% - 100.0%      3.5 s     26.5 ms         18.1 ms
    pick-place     30 Hz    19/20    76.4% - 99.1%      5.6 s      5.2 ms         14.4 ms
    pick-place     15 Hz    19/20    76.4% - 99.1%      5.6 s      7.8 ms
    pick-place     10 Hz    19/20    76.4% - 99.1%      5.7 s      8.3 ms         15.4 ms

The scene that fails is the same one at every rate (seed 1, as in `scripted_operator.py`). The times with cameras are of
an earlier run, and so is `--arm koch`: 20/20 in every row, at 8 to 15 ms a step.
"""

import argparse
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.cameras import CameraConfig
from lerobot.robots import make_robot_from_config
from lerobot.teleoperators import make_teleoperator_from_config
from scipy.stats import binomtest

from lerobot_vla_plugin.arms.calibration import example_calibration_dir
from lerobot_vla_plugin.arms.config_followers import KochVLAFollowerConfig, SO101VLAFollowerConfig
from lerobot_vla_plugin.arms.config_leaders import KochVLALeaderConfig, SO101VLALeaderConfig
from lerobot_vla_plugin.arms.config_step_camera import StepCameraConfig
from lerobot_vla_plugin.twin.control import TwinControl, VerdictFacts
from lerobot_vla_plugin.twin.koch import KochTwin
from lerobot_vla_plugin.twin.scenes import TASKS
from lerobot_vla_plugin.twin.so101 import SO101Twin, TwinConfig
from lerobot_vla_plugin.twin.stage import CAMERAS

_ARMS = {
    "so101": (SO101Twin, SO101VLAFollowerConfig, SO101VLALeaderConfig),
    "koch": (KochTwin, KochVLAFollowerConfig, KochVLALeaderConfig),
}


class Host:
    """LeRobot's loop of teleoperation, on a twin in lock-step."""

    def __init__(self, control: TwinControl, *, with_cameras: bool) -> None:
        facts = control.facts
        twin, follower_config, leader_config = _ARMS[facts.arm]
        calibrations = twin.kind.calibration_name
        size: dict[str, Any] = {"width": 128, "height": 96, "fps": 30}
        cameras: dict[str, CameraConfig] = {
            name: StepCameraConfig(server_address="127.0.0.1", port=facts.camera_port, camera_name=name, **size)
            for name in (CAMERAS if with_cameras else ())
        }
        self.follower: Any = make_robot_from_config(
            follower_config(
                port=str(facts.follower_port),
                id=f"{facts.arm}_follower",
                calibration_dir=example_calibration_dir(f"{calibrations}_follower"),
                cameras=cameras,
            )
        )
        self.leader = make_teleoperator_from_config(
            leader_config(
                port=str(facts.leader_port),
                id=f"{facts.arm}_leader",
                calibration_dir=example_calibration_dir(f"{calibrations}_leader"),
            )
        )
        self.control, self.periods_s = control, []
        self.follower.clock = lambda: control.step / facts.steps_per_s
        self.leader.connect()
        self.follower.connect()

    def attempt(self, task: str, seed: int, fps: int) -> VerdictFacts:
        """Let the person do a task, until it is done or its time is over."""
        scene = self.control.reset(task, seed)
        self.follower.guard.forget()
        self._await(scene.step)
        while True:
            start_s = time.perf_counter()
            self.follower.get_observation()
            self.follower.send_action(self.leader.get_action())
            self.follower.bus.sync_read("Present_Position")
            self._await(self.control.advance(self.control.facts.steps_per_s // fps))
            self.periods_s.append(time.perf_counter() - start_s)
            verdict = self.control.verdict()
            if verdict.success or verdict.seconds > scene.time_limit_s:
                return verdict

    def close(self) -> None:
        """Let go of both arms."""
        self.follower.disconnect()
        self.leader.disconnect()

    def _await(self, step: int) -> None:
        for camera in self.follower.cameras.values():
            camera.await_step(step)


def measure(host: Host, task: str, seeds: range, fps: int) -> str:
    """One row of the table, and one for each failure."""
    host.periods_s.clear()
    verdicts = {seed: host.attempt(task, seed, fps) for seed in seeds}
    successes = sum(verdict.success for verdict in verdicts.values())
    low, high = binomtest(successes, len(seeds)).proportion_ci(method="wilson")
    length_s = np.mean([verdict.seconds for verdict in verdicts.values()])
    period_ms, counts = 1e3 * np.median(host.periods_s), f"{successes}/{len(seeds)}"
    row = f"{task:12s} {fps:4d} Hz {counts:>8s} {f'{low:.1%} - {high:.1%}':>16s} {length_s:8.1f} s {period_ms:8.1f} ms"
    failures = [f"    seed {seed}: {verdict.done}" for seed, verdict in verdicts.items() if not verdict.success]
    return "\n".join([row, *failures])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="attempts at each task and rate")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--fps", nargs="+", type=int, default=[30, 15, 10], help="goals a simulated second")
    parser.add_argument("--cameras", action="store_true", help="wait for pictures, too")
    parser.add_argument("--arm", choices=list(_ARMS), default="so101")
    options = parser.parse_args()
    logging.getLogger("lerobot_vla_plugin").setLevel(logging.ERROR)  # the guard holds a hasty wrist back now and then
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    print(f"{'task':12s} {'rate':>7s} {'success':>8s} {'interval':>16s} {'length':>10s} {'a step':>11s}")
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        config = TwinConfig(directory=directory, task=options.tasks[0], lock_step=True)
        with _ARMS[options.arm][0](config), TwinControl(directory) as control:
            host = Host(control, with_cameras=options.cameras)
            for task in options.tasks:
                for fps in options.fps:
                    print(measure(host, task, seeds, fps), flush=True)
            host.close()


if __name__ == "__main__":
    main()
