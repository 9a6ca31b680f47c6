"""What checking every reply costs: LeRobot's servo buses and ours beside each other, taking turns on emulated servos.

    python benchmarks/bus_overhead.py               # both arms, half a minute
    python benchmarks/bus_overhead.py --pairs 2000

One pair reads six positions and writes six goals, as an observation and an action do. The servos are served by a
process of their own, at the speed of a 1 Mbaud wire. Both sides speak to the same servos in turn; figures are medians
over the turns, and the ratio is what to compare across machines. The processor's share is measured at 60 Hz: LeRobot's
SDKs ask the port over and over while they wait, ours let the operating system wake them.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from lerobot.motors.dynamixel import DynamixelMotorsBus
from lerobot.motors.feetech import FeetechMotorsBus
from lerobot.motors.motors_bus import SerialMotorsBus
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from buses_on_twins import host, koch_servos, so101_servos

from lerobot_vla_plugin.arms.dynamixel_bus import ReliableDynamixelBus
from lerobot_vla_plugin.arms.feetech_bus import ReliableFeetechBus

ARMS: dict[str, tuple[Callable, type[SerialMotorsBus], type[SerialMotorsBus]]] = {
    "so101": (so101_servos, FeetechMotorsBus, ReliableFeetechBus),
    "koch": (koch_servos, DynamixelMotorsBus, ReliableDynamixelBus),
}
_TURN = 25  # pairs of one side before the other's
_PACED_HZ = 60


def _serve(arm: str, connection: Connection) -> None:
    servos = ARMS[arm][0]()
    servos.start()
    connection.send(servos.port)
    connection.recv()
    servos.stop()


@contextmanager
def served(arm: str) -> Iterator[str]:
    """Port of emulated servos in another process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(arm, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send(None)
        process.join()


def pair(bus: SerialMotorsBus) -> None:
    """One observation and one action."""
    # With retries on both sides: on a busy machine a reply of the emulated servos may be late.
    bus.sync_write("Goal_Position", bus.sync_read("Present_Position", num_retry=5))


def time_turn(bus: SerialMotorsBus, pairs: int) -> list[float]:
    """Seconds of each of some pairs, after one that is not counted: the other side has just had its turn."""
    pair(bus)
    seconds = []
    for _ in range(pairs):
        started_s = time.perf_counter()
        pair(bus)
        seconds.append(time.perf_counter() - started_s)
    return seconds


def processor_share(bus: SerialMotorsBus, seconds: float) -> float:
    """Share of one core that this process uses at `_PACED_HZ`."""
    started_s, used_s = time.perf_counter(), time.process_time()
    for step in range(round(seconds * _PACED_HZ)):
        time.sleep(max(0.0, started_s + step / _PACED_HZ - time.perf_counter()))
        pair(bus)
    return (time.process_time() - used_s) / (time.perf_counter() - started_s)


def compare(arm: str, pairs: int) -> dict[str, float]:
    """Medians in [s] and processor shares of both sides, and the ratio of the medians."""
    _, theirs, ours = ARMS[arm]
    with served(arm) as port:
        buses = {"LeRobot": host(theirs, port), "ours": host(ours, port)}
        for bus in buses.values():
            bus.connect()
            bus.configure_motors()  # replies without the 0.5 ms that a servo pauses from the factory
        seconds: dict[str, list[float]] = {name: [] for name in buses}
        for _ in tqdm(range(max(pairs // _TURN, 1)), arm, leave=False, disable=None):
            for name, bus in buses.items():
                seconds[name] += time_turn(bus, _TURN)
        shares = {f"{name} share": processor_share(bus, 3.0) for name, bus in buses.items()}
        for bus in buses.values():
            bus.disconnect()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {**medians, **shares, "ratio": medians["ours"] / medians["LeRobot"]}


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--pairs", type=int, default=1000, help="pairs a side")
    arguments = parser.parse_args()
    print("| arm | LeRobot | ours | ratio | processor at 60 Hz: LeRobot | ours |\n|---|---|---|---|---|---|")
    for arm in arguments.arms:
        result = compare(arm, arguments.pairs)
        times = " | ".join(f"{result[name] * 1e3:.3f} ms, {1 / result[name]:.0f} Hz" for name in ("LeRobot", "ours"))
        shares = " | ".join(f"{result[f'{name} share']:.1%}" for name in ("LeRobot", "ours"))
        print(f"| {arm} | {times} | {result['ratio']:.2f} | {shares} |")


if __name__ == "__main__":
    main()
