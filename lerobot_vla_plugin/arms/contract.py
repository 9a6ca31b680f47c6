"""Where a loaded checkpoint and an arm meet: whichever comes second is checked, and nothing moves on a mismatch.

LeRobot introduces neither to the other. So both announce themselves to the record of this module: a policy when it is
loaded to act, a follower of this package in `connect()`, before anything touches its bus. LeRobot's own followers
announce nothing; a policy looks for them when it is first asked for an action, inside the try/finally by which
LeRobot's commands switch the torque off.
"""

import gc
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakSet

from lerobot_vla_plugin.arms.arm_facts import SimulatedRobot, arm_facts, connected_robots
from lerobot_vla_plugin.arms.call_rate import CallRate
from lerobot_vla_plugin.arms.contract_terms import (
    UNKNOWN,
    ArmContract,
    Finding,
    Verdict,
    compare,
    contradiction_of_percent,
)

if TYPE_CHECKING:
    from lerobot.robots import Robot

logger = logging.getLogger(__name__)


class ContractMismatchError(ValueError):
    """The arm, or the way it is run, is not what the checkpoint was trained on."""


class ContractCheck:
    """The contract of one loaded policy, held against the arm that it acts on.

    Args:
        contract: What the checkpoint was trained on; None if it says nothing.
        joint_unit: The unit as given on the command line, for a checkpoint that does not know it.
        overrides: Terms that may differ.
        plans_every_call: Whether each call of `select_action` plans a new chunk.

    Raises:
        ContractMismatchError: `joint_unit` contradicts the checkpoint.
    """

    def __init__(
        self,
        contract: ArmContract | None,
        joint_unit: str | None = None,
        overrides: Sequence[str] = (),
        *,
        plans_every_call: bool = False,
    ) -> None:
        self._overrides = overrides
        self.contract = contract or ArmContract()
        if joint_unit is not None:
            self._report([_check_said_unit(self.contract, joint_unit)])
            self.contract = replace(self.contract, joint_unit=joint_unit)
        self._met: WeakSet[Robot | SimulatedRobot] = WeakSet()
        self._plans_every_call = plans_every_call
        self._looked = self._found = False
        self._rate: CallRate | None = None
        self._clock: Callable[[], float] = time.monotonic

    def check(self, robot: "Robot | SimulatedRobot", *, unit_needed: bool, with_cameras: bool) -> None:
        """Hold an arm against the contract and say what was looked at.

        Args:
            robot: The arm.
            unit_needed: Refuse if the checkpoint's unit is unknown.
            with_cameras: Compare the arm's cameras, too.

        Raises:
            ContractMismatchError: A term differs that is not overridden.
        """
        facts = arm_facts(robot)
        findings = compare(self.contract, facts, unit_needed=unit_needed, with_cameras=with_cameras)
        self._report(findings, f"this checkpoint on {facts.description}")
        self._met.add(robot)

    def before_action(self, *, plans: bool) -> None:
        """Meet the arms of this process, and measure the rate of calls; to be called before every action.

        Args:
            plans: Whether this call plans a new chunk.

        Raises:
            ContractMismatchError: No arm fits, or the rate is not the one of the training data.
        """
        self.meet_arms()
        if self._rate is None:
            return
        measured_hz = self._rate.call(self._clock(), plans=plans)
        if measured_hz is not None:
            self._report([_wrong_rate(self._rate.taught_hz, measured_hz)])
            self._rate = None  # overridden

    def meet_arms(self) -> None:
        """Look once an episode, until one is found, for arms that did not announce themselves.

        In a simulator of LeRobot's there are none, and nothing is checked. Among several, one must fit: the others may
        have policies of their own.

        Raises:
            ContractMismatchError: There are arms, and none fits.
        """
        if self._looked:
            return
        robots = connected_robots()
        mismatches = [error for robot in robots if (error := self._mismatch(robot))]
        if mismatches and len(mismatches) == len(robots):
            raise mismatches[0]
        if robots and not self._found and self.contract.fps:
            self._rate = CallRate(self.contract.fps, plans_every_call=self._plans_every_call)
            # Of the first arm: the arms of a simulation share its time.
            self._clock = getattr(robots[0], "clock", time.monotonic)
        self._found = self._found or bool(robots)
        self._looked = True

    def start_episode(self) -> None:
        """An episode begins: the pause before it is no interval between calls, and an arm may have come."""
        self._looked = self._found
        if self._rate:
            self._rate.pause()

    def _mismatch(self, robot: "Robot") -> ContractMismatchError | None:
        """Why a connected arm does not fit; None if it does."""
        if robot in self._met:
            return None
        try:
            self.check(robot, unit_needed=robot in _robots, with_cameras=False)
        except ContractMismatchError as error:
            return error
        return None

    def _report(self, findings: list[Finding], subject: str = "this checkpoint") -> None:
        differing = [finding for finding in findings if finding.verdict is Verdict.DIFFERS]
        refused = [finding for finding in differing if finding.term not in self._overrides]
        lines = "\n  ".join(
            f"{finding}{' [overridden]' if finding in differing and finding not in refused else ''}"
            for finding in findings
        )
        if refused:
            terms = json.dumps([finding.term for finding in refused])  # LeRobot parses a checkpoint's options as JSON
            raise ContractMismatchError(
                f"{subject} is not what it was trained on; nothing more is sent to the arm:\n  {lines}\n"
                f"If you know better: --policy.contract_overrides='{terms}'"
            )
        fine = all(finding.verdict in (Verdict.FITS, Verdict.LATER) for finding in findings)
        logger.log(logging.INFO if fine else logging.WARNING, "Contract: %s\n  %s", subject, lines)


def _check_said_unit(contract: ArmContract, said: str) -> Finding:
    contradiction = contradiction_of_percent(contract.spans) if said == "percent" else None
    if contract.joint_unit not in (UNKNOWN, said):
        contradiction = f"it was trained in {contract.joint_unit}"
    if contradiction:
        message = f"--policy.joint_unit={said}, but {contradiction}; leave the option out"
        return Finding("unit", Verdict.DIFFERS, message)
    return Finding("unit", Verdict.FITS, f"{said}, as --policy.joint_unit says")


def _wrong_rate(taught_hz: float, measured_hz: float) -> Finding:
    message = (
        f"trained at {taught_hz:g} actions a second, asked for {measured_hz:.1f}: the arm would move "
        f"{measured_hz / taught_hz:.2f} times as fast; run it with --fps={taught_hz:g}"
    )
    slow = ", and see what slows the loop down" if measured_hz < taught_hz else ""
    return Finding("fps", Verdict.DIFFERS, message + slow)


_policies: WeakSet[ContractCheck] = WeakSet()
_robots: "WeakSet[Robot | SimulatedRobot]" = WeakSet()


def register_policy(policy: ContractCheck) -> None:
    """Announce a policy that was loaded to act; arms that are connected already are checked now.

    Args:
        policy: Its check; forgotten when the policy is.

    Raises:
        ContractMismatchError: An arm that is connected does not fit.
    """
    for robot in list(_robots):
        if robot.is_connected:
            policy.check(robot, unit_needed=True, with_cameras=True)
    _policies.add(policy)


def check_robot(robot: "Robot | SimulatedRobot") -> None:
    """Announce an arm that is about to connect, and refuse it where it fits none of the loaded policies.

    One that fits is enough, because a process may hold a policy for each of its arms; a policy that does not fit finds
    that out before its first action.

    Args:
        robot: The arm, not connected yet.

    Raises:
        ContractMismatchError: Policies are loaded, and it fits none of them.
    """
    if _policies:
        gc.collect()  # a policy that nobody holds any more may still be in memory
    mismatches = _mismatches(robot)
    if mismatches:
        raise mismatches[0]
    _robots.add(robot)


def _mismatches(robot: "Robot | SimulatedRobot") -> list[ContractMismatchError]:
    """Why a robot fits none of the loaded policies; empty if it fits one, or none is loaded."""
    mismatches = []
    for policy in list(_policies):
        try:
            policy.check(robot, unit_needed=True, with_cameras=True)
        except ContractMismatchError as error:
            mismatches.append(error)
        else:
            return []
    return mismatches
