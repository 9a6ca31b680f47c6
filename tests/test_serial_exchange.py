"""What is read through every fault of the wire is what stands there, or an error."""

import statistics
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from buses_on_twins import ARMS, Pair, connected_pair

from lerobot_vla_plugin.arms.serial_exchange import SILENCE_S
from lerobot_vla_plugin.arms.serial_port import REPLY_TIMEOUT_S
from lerobot_vla_plugin.twin.faults import Fault, FaultKind

WIRE_FAULTS = ("drop", "corrupt", "wrong_id", "truncate", "late", "duplicate", "noise")


@pytest.fixture(params=ARMS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with connected_pair(request.param) as pair:
        yield pair


def observe(pair: Pair, count: int) -> tuple[int, int]:
    """Correct readings and exceptions of an arm that moves by a tick or two in between; a wrong reading fails."""
    generator = np.random.default_rng(0)
    positions, correct, exceptions = dict(pair.middle), 0, 0
    for _ in range(count):
        positions = {name: position + int(generator.choice([-2, -1, 1, 2])) for name, position in positions.items()}
        pair.servos.teleport(positions)
        try:
            assert pair.bus.read_positions_ticks() == positions
            correct += 1
        except ConnectionError:
            exceptions += 1
    return correct, exceptions


@pytest.mark.parametrize("kind", WIRE_FAULTS)
def test_no_fault_of_the_wire_gives_a_wrong_reading(pair: Pair, kind: str) -> None:
    pair.servos.inject(Fault(FaultKind(kind), rate=0.25, delay_s=0.075), seed=3)
    correct, exceptions = observe(pair, 3)
    assert correct + exceptions == 3
    assert pair.servos.fault_hits()[FaultKind(kind)] > 0
    assert pair.bus.statistics.retries > 0


@pytest.mark.parametrize("kind", ["drop", "corrupt", "late"])
def test_one_percent_of_bad_replies_costs_no_reading(pair: Pair, kind: str) -> None:
    pair.servos.inject(Fault(FaultKind(kind), rate=0.01), seed=1)
    assert observe(pair, 300) == (300, 0)
    assert pair.servos.fault_hits()[FaultKind(kind)] >= 8
    assert pair.bus.statistics.failures == 0


@pytest.mark.parametrize("delay_s", [0.03, REPLY_TIMEOUT_S + 0.5 * SILENCE_S, 0.09, 0.12])
@pytest.mark.parametrize("joint", ["shoulder_pan", "gripper"])
def test_a_late_reply_spoils_no_later_reading(pair: Pair, delay_s: float, joint: str) -> None:
    pair.servos.inject(Fault(FaultKind.LATE, joint=joint, delay_s=delay_s, count=1))
    until_s = time.monotonic() + delay_s + 0.05
    while time.monotonic() < until_s:
        assert observe(pair, 1) == (1, 0)
    assert pair.servos.fault_hits() == {FaultKind.LATE: 1}


def test_what_nobody_waits_for_any_more_is_thrown_away(pair: Pair) -> None:
    """The reply to another register of the same servo and length: LeRobot takes it for the position."""
    pair.bus.port_handler.is_using = False
    pair.bus._sdk.readTx(pair.bus.port_handler, 6, 9 if "Feetech" in type(pair.bus).__name__ else 48, 2)
    while pair.bus.port_handler.ser.in_waiting < 8:
        time.sleep(0.001)
    assert pair.bus.read_positions_ticks() == pair.middle
    assert pair.bus.statistics.stale_bytes > 0
    assert pair.bus.statistics.retries == 0


def test_a_reply_that_lies_there_is_taken_however_late_the_host_looks(pair: Pair) -> None:
    send = pair.bus._send_sync_read

    def send_and_pause(address: int, length: int, ids: list[int]) -> int:
        result = send(address, length, ids)
        time.sleep(REPLY_TIMEOUT_S + 0.2)
        return result

    pair.bus._send_sync_read = send_and_pause
    assert pair.bus.read_positions_ticks() == pair.middle
    assert pair.bus.statistics.timeouts == 0


def test_a_port_that_an_error_left_in_use_works(pair: Pair) -> None:
    pair.bus.port_handler.is_using = True
    assert pair.bus.read_positions_ticks() == pair.middle
    pair.bus.port_handler.is_using = True
    pair.bus.write_goals_ticks(pair.middle)


def test_waiting_leaves_the_processor_alone(pair: Pair) -> None:
    pair.servos.inject(Fault(FaultKind.LATE, joint="shoulder_pan", delay_s=0.04))
    started_s, used_s = time.perf_counter(), time.thread_time()
    for _ in range(5):
        pair.bus.read_positions_ticks()
    assert time.perf_counter() - started_s > 5 * 0.04
    assert time.thread_time() - used_s < 0.2 * (time.perf_counter() - started_s)


def test_reading_and_writing_runs_at_200_hz(pair: Pair) -> None:
    pair.bus.configure_motors()
    seconds = []
    for _ in range(200):
        started_s = time.perf_counter()
        pair.bus.sync_write("Goal_Position", pair.bus.sync_read("Present_Position"))
        seconds.append(time.perf_counter() - started_s)
    assert statistics.median(seconds) < 1 / 200


def test_two_threads_take_turns(pair: Pair) -> None:
    wrong: list[object] = []

    def read_on() -> None:
        wrong.extend(p for p in (pair.bus.read_positions_ticks() for _ in range(50)) if p != pair.middle)

    threads = [threading.Thread(target=read_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert pair.bus.statistics.foreign == pair.bus.statistics.corrupt == 0
