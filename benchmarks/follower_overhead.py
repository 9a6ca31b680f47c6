"""What exact ticks, checked replies and the guard cost: our followers beside LeRobot's, on emulated arms.

    python benchmarks/follower_overhead.py

A pair is one `get_observation` and one `send_action`, as in LeRobot's control loops, without cameras. Each follower
has an emulated arm of its own in another process, at the speed of a 1 Mbaud wire. The pairs of the two alternate, so
that whatever else the machine does meets both; medians and their ratio are printed. Then ours is run at a given rate
and late commands are counted.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lerobot_vla_plugin.arms.calibration import example_calibration, example_calibration_dir
from lerobot_vla_plugin.twin.koch import KochTwin
from lerobot_vla_plugin.twin.so101 import SO101Twin

KINDS = {"so101": SO101Twin.kind, "koch": KochTwin.kind}
WARM_UP_PAIRS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--pairs", type=int, default=2000, help="pairs of each follower")
    parser.add_argument("--rate", type=float, default=200.0, help="commands a second that ours has to hold, in [Hz]")
    options = parser.parse_args()
    for kind in options.arms:
        compare(kind, options.pairs, options.rate)


def compare(kind: str, pairs: int, rate_hz: float) -> None:
    """Print the medians of both followers of one arm, and how ours holds a rate."""
    with emulated_follower(kind) as lerobots_port, emulated_follower(kind) as our_port:
        lerobots, ours = connected(f"{kind}_follower", lerobots_port), connected(f"{kind}_vla_follower", our_port)
        try:
            times_s = alternate([lerobots, ours], pairs)
            lerobots_s, ours_s = (statistics.median(times) for times in times_s)
            print(f"{kind}: LeRobot {lerobots_s * 1e6:.0f} us, ours {ours_s * 1e6:.0f} us, x{ours_s / lerobots_s:.3f}")
            lost = [pairs - len(times) for times in times_s]
            print(f"{kind}: pairs that raised an error: LeRobot {lost[0]}, ours {lost[1]}")
            late, held_hz = hold_rate(ours, rate_hz)
            print(f"{kind}: ours at {rate_hz:g} Hz: held {held_hz:.1f} Hz, {late:.1%} of the commands came late")
            print(f"{kind}: {ours.guard.report.summary()}; {ours.bus.statistics}")
        finally:
            lerobots.disconnect()
            ours.disconnect()


def alternate(followers: list[Any], pairs: int) -> list[list[float]]:
    """Durations of the pairs of each follower, in [s], taken in turn; pairs that raise an error are left out."""
    durations_s: list[list[float]] = [[] for _ in followers]
    for cycle in range(WARM_UP_PAIRS + pairs):
        for follower, durations in zip(followers, durations_s, strict=True):
            # After one late reply LeRobot would read every later one from the buffer: at once, and a cycle old.
            follower.bus.port_handler.ser.reset_input_buffer()
            started_s = time.perf_counter()
            try:
                follower.send_action(follower.get_observation())
            except ConnectionError:
                continue
            if cycle >= WARM_UP_PAIRS:
                durations.append(time.perf_counter() - started_s)
    return durations_s


def hold_rate(follower: Any, rate_hz: float, seconds: float = 5.0) -> tuple[float, float]:
    """Share of the pairs that were not done when the next one was due, and the mean rate in [Hz]."""
    late, total = 0, round(seconds * rate_hz)
    started_s = time.perf_counter()
    for cycle in range(1, total + 1):
        follower.send_action(follower.get_observation())
        wait_s = started_s + cycle / rate_hz - time.perf_counter()
        late += wait_s < 0
        time.sleep(max(wait_s, 0.0))
    return late / total, total / (time.perf_counter() - started_s)


def connected(robot_type: str, port: str) -> Any:
    """A follower of a type, on a port."""
    from lerobot.robots import RobotConfig, make_robot_from_config

    kind = KINDS[robot_type.partition("_")[0]]
    config = RobotConfig.get_choice_class(robot_type)(
        port=port,
        id=f"{kind.name}_follower",
        calibration_dir=example_calibration_dir(f"{kind.calibration_name}_follower"),
    )
    robot = make_robot_from_config(config)
    robot.connect()
    return robot


@contextmanager
def emulated_follower(kind: str) -> Iterator[str]:
    """Port of an emulated arm, in a process of its own: it must not share the interpreter with what is measured."""
    with tempfile.TemporaryDirectory() as directory:
        port = Path(directory) / "follower"
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(kind, port, theirs))
        process.start()
        try:
            ours.recv()
            yield str(port)
        finally:
            ours.send("stop")
            process.join()


def _serve(kind: str, port: Path, parent: Connection) -> None:
    calibration = example_calibration(f"{KINDS[kind].calibration_name}_follower", f"{kind}_follower")
    middle = {name: (joint.range_min + joint.range_max) // 2 for name, joint in calibration.items()}
    bus = KINDS[kind].make_follower_bus(calibration, middle, port)
    bus.start()
    parent.send("ready")
    parent.recv()
    bus.stop()


if __name__ == "__main__":
    main()
