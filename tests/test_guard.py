"""The guard by itself: no sequence of commands makes it send a goal that is too fast, too far or out of range."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lerobot_vla_plugin.arms.calibration import example_calibration
from lerobot_vla_plugin.arms.guard import FIRST_STEP_S, GAP_S, ActionGuard, GuardConfig
from lerobot_vla_plugin.arms.guard_report import InterventionKind
from lerobot_vla_plugin.arms.joints import TICKS_PER_TURN, JointConverter, joint_modes

CALIBRATION = example_calibration("so_follower", "so101_follower")
NAMES = list(CALIBRATION)
TICKS_PER_DEG = TICKS_PER_TURN / 360
MIDDLE = {name: (joint.range_min + joint.range_max) // 2 for name, joint in CALIBRATION.items()}
TELEOPERATION = Path(__file__).resolve().parents[2] / "shared/data/so101_teleop/joints.parquet"


def _converter(degrees: bool) -> JointConverter:
    return JointConverter(CALIBRATION, joint_modes(NAMES, degrees=degrees), inverts_in_software=True)


def _guard(degrees: bool = True, **limits: float) -> ActionGuard:
    return ActionGuard(GuardConfig(**limits), CALIBRATION, _converter(degrees))


def _units(ticks: Mapping[str, int], degrees: bool = True) -> dict[str, float]:
    return _converter(degrees).dict_to_units(ticks)


def _moved(joint: str, deg: float) -> dict[str, int]:
    return {**MIDDLE, joint: MIDDLE[joint] + round(deg * TICKS_PER_DEG)}


def _started(guard: ActionGuard, ticks: dict[str, int], time_s: float = 0.0) -> ActionGuard:
    """The guard of an arm that stands at a place and is commanded to stay there."""
    guard.start(ticks, time_s)
    assert guard.next_goals(_units(ticks), time_s) == ticks
    return guard


@st.composite
def _commands(draw: st.DrawFn) -> list[tuple[float, dict[str, float]]]:
    """Pauses in [s] and commanded values, some outside the range of every unit."""
    pauses_s = draw(st.lists(st.floats(0.0, 0.8), min_size=1, max_size=12))
    values = st.floats(-400, 400, allow_nan=False)
    return [(pause_s, {name: draw(values) for name in NAMES}) for pause_s in pauses_s]


@given(_commands(), st.booleans(), st.floats(10, 400), st.floats(5, 60), st.floats(5, 60), st.floats(0, 20))
@settings(max_examples=150)
def test_no_commands_break_a_limit(commands, degrees, speed_deg_s, step_deg, start_deg_s, margin_deg) -> None:
    guard = _guard(
        degrees,
        max_speed_deg_s=speed_deg_s,
        max_step_deg=step_deg,
        start_speed_deg_s=start_deg_s,
        margin_deg=margin_deg,
    )
    time_s, goals, catching_up = 0.0, MIDDLE, set(NAMES)
    for pause_s, values in commands:
        time_s += pause_s
        elapsed_s = pause_s
        if guard.needs_start(time_s):
            guard.start(goals, time_s)
            elapsed_s, catching_up = FIRST_STEP_S, set(NAMES)
        previous, goals = goals, guard.next_goals(values, time_s)
        wanted = _converter(degrees).dict_to_ticks(values)
        for name, joint in CALIBRATION.items():
            margin_ticks = 0 if name == "gripper" else math.ceil(margin_deg * TICKS_PER_DEG)
            low, high = joint.range_min + margin_ticks, joint.range_max - margin_ticks
            assert low <= goals[name] <= high
            moved_deg = (abs(goals[name] - previous[name]) - 1) / TICKS_PER_DEG  # two halves of a tick are rounding
            allowed_deg_s = min(speed_deg_s, start_deg_s) if name in catching_up else speed_deg_s
            assert moved_deg <= allowed_deg_s * elapsed_s + 1e-6
            assert moved_deg <= step_deg
            if goals[name] == np.clip(wanted[name], low, high):
                catching_up.discard(name)


@given(st.dictionaries(st.sampled_from(NAMES), st.floats(-100, 100), min_size=6), st.booleans())
def test_what_is_inside_all_limits_goes_through_exactly(values: dict[str, float], degrees: bool) -> None:
    guard = _guard(degrees)
    expected = _converter(degrees).dict_to_ticks(values)
    guard.start(expected, 0.0)
    sent = guard.next_goals(values, 0.0)
    assert sent == expected
    back = _converter(degrees).dict_to_units(sent)
    assert guard.next_goals({name: float(np.float32(v)) for name, v in back.items()}, 0.02) == expected


def test_an_arm_never_jumps_at_the_start() -> None:
    guard = _guard()
    guard.start(MIDDLE, 5.0)
    target, time_s, goals = _moved("elbow_flex", 60), 5.0, []
    while not goals or goals[-1] != target["elbow_flex"]:
        goals.append(guard.next_goals(_units(target), time_s)["elbow_flex"])
        time_s += 0.02
    steps_deg = np.diff([MIDDLE["elbow_flex"], *goals]) / TICKS_PER_DEG
    assert steps_deg[0] == pytest.approx(45 / 30, abs=0.1)
    assert steps_deg[1:].max() <= 45 * 0.02 + 0.1
    assert time_s - 5.0 == pytest.approx(60 / 45, abs=0.1)
    assert guard.next_goals(_units(_moved("elbow_flex", 67)), time_s) == _moved("elbow_flex", 67)  # 350 deg/s


def test_each_joint_catches_up_by_itself() -> None:
    guard = _guard()
    guard.start(MIDDLE, 0.0)
    target = {**_moved("elbow_flex", 60), "gripper": MIDDLE["gripper"] + 10}
    assert guard.next_goals(_units(target), 0.0)["gripper"] == target["gripper"]
    target["gripper"] += 110  # 290 deg/s, while the elbow still creeps
    assert guard.next_goals(_units(target), 1 / 30)["gripper"] == target["gripper"]


def test_after_a_gap_the_arm_starts_slowly_again() -> None:
    guard = _started(_guard(), MIDDLE)
    assert not guard.needs_start(GAP_S)
    assert guard.needs_start(GAP_S + 0.01)
    with pytest.raises(RuntimeError, match="fresh reading"):
        guard.next_goals(_units(MIDDLE), GAP_S + 0.01)
    fallen = _moved("shoulder_lift", -40)  # nobody held it
    guard.start(fallen, 1.0)
    sent = guard.next_goals(_units(MIDDLE), 1.0)
    assert 0 < sent["shoulder_lift"] - fallen["shoulder_lift"] <= 45 / 30 * TICKS_PER_DEG + 1
    assert guard.report.count(InterventionKind.START) == 1


def test_a_slow_joint_creeps_at_any_rate_of_commands() -> None:
    guard = _guard()
    guard.start(MIDDLE, 0.0)
    for step in range(1001):
        sent = guard.next_goals(_units(_moved("wrist_flex", 80)), step / 1000)
    assert sent["wrist_flex"] - MIDDLE["wrist_flex"] == pytest.approx(45 * (1 + FIRST_STEP_S) * TICKS_PER_DEG, abs=1)


def test_a_joint_outside_its_range_comes_back_slowly() -> None:
    high = CALIBRATION["elbow_flex"].range_max
    guard = _guard()
    guard.start({**MIDDLE, "elbow_flex": high + 200}, 0.0)
    sent = guard.next_goals(_units({**MIDDLE, "elbow_flex": high + 200}), 0.0)
    assert high < sent["elbow_flex"] < high + 200


def test_speed_and_step_are_told_apart() -> None:
    guard = _started(_guard(), MIDDLE)
    guard.next_goals(_units(_moved("wrist_roll", 20)), 0.01)
    assert guard.report.count(InterventionKind.SPEED) == 1
    guard.next_goals(_units(_moved("wrist_roll", 80)), 0.4)
    assert guard.report.count(InterventionKind.STEP) == 1


@pytest.mark.parametrize("degrees", [True, False])
def test_how_far_a_command_lay_outside_is_reported_in_degrees(degrees: bool) -> None:
    at_the_end = {**MIDDLE, "shoulder_pan": CALIBRATION["shoulder_pan"].range_max}
    values = _units(at_the_end, degrees)
    one_degree = (
        1
        if degrees
        else 200 * TICKS_PER_DEG / (CALIBRATION["shoulder_pan"].range_max - CALIBRATION["shoulder_pan"].range_min)
    )
    guard = _guard(degrees)
    guard.start(at_the_end, 0.0)
    assert guard.next_goals({**values, "shoulder_pan": values["shoulder_pan"] + 7 * one_degree}, 0.0) == at_the_end
    ((kind, joint), tally), *others = guard.report.tallies.items()
    assert (kind, joint, others) == (InterventionKind.RANGE, "shoulder_pan", [])
    assert tally.largest_deg == pytest.approx(7, abs=0.01)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None, "up"])
def test_a_value_that_is_no_number_leaves_the_last_goals(bad) -> None:
    guard = _started(_guard(), MIDDLE)
    with pytest.raises(ValueError, match=r"the last goals stand"):
        guard.next_goals({**_units(MIDDLE), "wrist_flex": bad}, 0.02)
    assert guard.report.count(InterventionKind.REFUSED) == 1
    assert guard.report.summary() == "the guard sent 1 actions and intervened: action refused 1 times"
    assert guard.next_goals(_units(MIDDLE), 0.03) == MIDDLE


def test_missing_and_unknown_joints_are_named_with_those_that_exist() -> None:
    guard = _started(_guard(), MIDDLE)
    values = {("elbow" if name == "elbow_flex" else name): 0.0 for name in NAMES}
    with pytest.raises(ValueError, match=r"shoulder_pan.*missing are \['elbow_flex'\], unknown are \['elbow'\]"):
        guard.next_goals(values, 0.02)


@pytest.mark.parametrize(
    "limits",
    [{"max_speed_deg_s": 0}, {"max_step_deg": -1}, {"start_speed_deg_s": math.nan}, {"margin_deg": -0.1}],
)
def test_a_limit_that_is_none_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"guard.{next(iter(limits))} must be"):
        GuardConfig(**limits)


def test_a_margin_wider_than_a_joint_is_refused() -> None:
    with pytest.raises(ValueError, match=r"margin_deg=110.*shoulder_lift.*smaller"):
        _guard(margin_deg=110)


def test_infinite_limits_let_everything_through() -> None:
    guard = _guard(max_speed_deg_s=math.inf, max_step_deg=math.inf, start_speed_deg_s=math.inf)
    guard.start(MIDDLE, 0.0)
    for time_s, target in ((0.0, _moved("elbow_flex", 80)), (0.0, _moved("elbow_flex", -80))):
        assert guard.next_goals(_units(target), time_s) == target
    assert not guard.report.tallies


def test_the_log_has_a_line_a_second_and_the_summary_everything(caplog: pytest.LogCaptureFixture) -> None:
    guard = _started(_guard(max_speed_deg_s=10), MIDDLE)
    with caplog.at_level(logging.WARNING):
        for step in range(1, 91):
            guard.next_goals(_units(_moved("gripper", 60)), step / 30)
    assert len(caplog.records) == 3
    assert caplog.messages[0] == "The guard held back: speed limit: gripper 59.7 deg"
    assert guard.report.summary() == (
        "the guard sent 91 actions and intervened: gripper speed limit 90 times (up to 59.7 deg)"
    )
    assert _guard().report.summary() == "the guard changed none of 0 actions"


@pytest.mark.skipif(not TELEOPERATION.exists(), reason="the recorded teleoperation is not there")
@pytest.mark.parametrize("jitter_s", [0.0, 0.008])
def test_recorded_teleoperation_passes_unchanged(jitter_s: float) -> None:
    pandas = pytest.importorskip("pandas")
    frames = pandas.read_parquet(TELEOPERATION)
    generator = np.random.default_rng(0)
    for _, episode in frames.groupby("episode_index"):
        guard, converter = _guard(degrees=False), _converter(degrees=False)
        actions = [dict(zip(NAMES, action.tolist(), strict=True)) for action in episode.action]
        guard.start(converter.dict_to_ticks(actions[0]), 0.0)
        for step, action in enumerate(actions):
            time_s = step / 30 + generator.uniform(0, jitter_s)
            assert guard.next_goals(action, time_s) == converter.dict_to_ticks(action)
        assert not guard.report.tallies
