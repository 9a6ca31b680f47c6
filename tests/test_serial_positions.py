"""Positions are believed only where the joint can have moved there, or two readings agree."""

import time
from collections.abc import Callable

import pytest

from lerobot_vla_plugin.arms.serial_positions import FASTEST_JOINT_DEG_S, PositionFilter


def scripted(*readings: int) -> Callable[[], dict[str, int]]:
    iterator = iter(readings)
    return lambda: {"joint": next(iterator)}


def position_filter(*, wraps: bool = False) -> tuple[PositionFilter, list[None]]:
    contradictions: list[None] = []
    return PositionFilter(wraps=wraps, on_contradiction=lambda: contradictions.append(None)), contradictions


def test_the_first_reading_needs_a_second_one_and_later_ones_do_not() -> None:
    positions, contradictions = position_filter()
    assert positions.read(["joint"], scripted(2000, 2001)).ticks == {"joint": 2001}
    assert positions.read(["joint"], scripted(2003)).ticks == {"joint": 2003}
    assert contradictions == []


@pytest.mark.parametrize("readings", [(500, 2001), (500, 3500, 2001)])
def test_readings_that_nothing_confirms_are_not_believed(readings: tuple[int, ...]) -> None:
    positions, contradictions = position_filter()
    positions.read(["joint"], scripted(2000, 2000))
    believed = positions.read(["joint"], scripted(*readings))
    assert believed.ticks == {"joint": 2001}
    assert believed.jumped == ()
    assert len(contradictions) == len(readings) - 1


def test_two_readings_that_agree_are_right_and_the_joint_jumped() -> None:
    positions, _ = position_filter()
    positions.read(["joint"], scripted(2000, 2000))
    believed = positions.read(["joint"], scripted(3000, 3001))
    assert believed.ticks == {"joint": 3001}
    assert believed.jumped == ("joint",)


def test_readings_that_never_agree_are_an_error() -> None:
    positions, _ = position_filter()
    with pytest.raises(ConnectionError, match="contradict"):
        positions.read(["joint"], scripted(*range(0, 60_000, 1000)))


def test_the_seam_of_a_full_turn_is_no_jump() -> None:
    for wraps, doubted in ((True, 0), (False, 1)):
        positions, contradictions = position_filter(wraps=wraps)
        positions.read(["joint"], scripted(4094, 4095))
        positions.read(["joint"], scripted(1, 1))
        assert len(contradictions) == doubted


@pytest.mark.parametrize("garbled", [-31_000, 6_100, 31_000])
def test_a_value_far_beyond_a_turn_is_near_nothing(garbled: int) -> None:
    for readings in ((garbled, 2001), (garbled, garbled + 3_000, 2001)):
        positions, contradictions = position_filter(wraps=True)
        positions.read(["joint"], scripted(2000, 2000))
        assert positions.read(["joint"], scripted(*readings)).ticks == {"joint": 2001}
        assert contradictions


def test_a_joint_may_be_as_fast_as_the_limit() -> None:
    positions, contradictions = position_filter()
    positions.read(["joint"], scripted(0, 0))
    time.sleep(0.02)
    positions.read(["joint"], scripted(int(FASTEST_JOINT_DEG_S * 0.02 * 4096 / 360)))
    assert contradictions == []
