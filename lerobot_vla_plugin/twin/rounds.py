"""One scene after the other in real time, by a person who watches the arm and goes by what `lerobot-record` does.

A recording is episodes of fixed length, each followed by a time for the reset; then LeRobot saves, and sends nothing
meanwhile. So the person begins when goals come again after a pause, leads the arm back to where it started once the
time for the episode is over, and has the next scene ready before the next pause.
"""

from enum import Enum, auto

from lerobot_vla_plugin.twin.scenes import TASKS
from lerobot_vla_plugin.twin.workplace import LEAD_BACK_S, Workplace

RESET_S = 5.0  # of `--dataset.reset_time_s`: the way back, and a rest
_MARGIN_S = 0.4  # after an episode, so that its last frames do not show the way back
PAUSE_S = 0.2  # no goal for longer than this is more than a late one
_FRESH_S = 0.1
_GONE_S = 1.0  # without torque the arm is nobody's, and a leader that nobody reads leads nobody
_AFTER_SUCCESS_S = 1.0  # what a policy still shows of its success


class _Phase(Enum):
    WAITING = auto()
    ATTEMPT = auto()
    WAY_BACK = auto()


class Rounds:
    """Says when scenes are laid and attempts begin; the first scene lies already.

    Args:
        place: Where it happens.
        scene: Task, seed and color of the scene that lies there; the seeds count up from it.
    """

    def __init__(self, place: Workplace, scene: tuple[str, int, str | None]) -> None:
        self._place, (self._task, self._seed, self._color) = place, scene
        self._phase, self._since_s = _Phase.WAITING, float("-inf")
        self._paused, self._torque_s = True, float("-inf")
        self._at_the_latest_s = float("inf")

    def update(self, now_s: float, *, goal_s: float, read_s: float, torque: bool) -> bool:
        """Notice what goes on, and act.

        Args:
            now_s: Now, in [s].
            goal_s: When the follower was last sent somewhere, in [s].
            read_s: When the leader was last read, in [s].
            torque: Whether any of the follower's motors is on.

        Returns:
            Whether time passes: while an arm without torque waits, the person holds it where it is to start.
        """
        self._torque_s = now_s if torque else self._torque_s
        if self._phase is _Phase.WAITING:
            self._wait(now_s, goal_s)
        elif now_s - self._torque_s > _GONE_S:
            self.lay_next(now_s, torque=False)
        elif self._phase is _Phase.WAY_BACK:
            if now_s - self._since_s > LEAD_BACK_S + _MARGIN_S:
                self.lay_next(now_s, torque=torque)
        elif now_s - read_s < _GONE_S:
            self._lead(now_s)
        else:
            self._watch(now_s, torque)
        return torque or self._phase is not _Phase.WAITING

    def lay_next(self, now_s: float, *, torque: bool) -> None:
        """Lay the next scene, around the arm as it stands where it is under torque.

        Args:
            now_s: Now, in [s].
            torque: Whether it is.
        """
        led = self._phase is _Phase.WAY_BACK
        self._seed += 1
        self._place.lay(self._task, self._seed, self._color, keep_posture=torque)
        # A policy goes on without a pause, and a pause that is too short to be seen must not cost a round.
        self._paused = not led
        self._at_the_latest_s = now_s + RESET_S - LEAD_BACK_S if led else now_s
        self._enter(_Phase.WAITING, now_s)

    def _wait(self, now_s: float, goal_s: float) -> None:
        """Begin when goals come after a pause; an arm that was let go is held again where it is to start."""
        if self._since_s < self._torque_s < now_s - _GONE_S:
            self.lay_next(now_s, torque=False)
        self._paused = self._paused or now_s - goal_s > PAUSE_S
        late = now_s > self._at_the_latest_s
        if goal_s > self._since_s and now_s - goal_s < _FRESH_S and (self._paused or late):
            self._place.begin()
            self._enter(_Phase.ATTEMPT, now_s)

    def _lead(self, now_s: float) -> None:
        """Once the time for the episode is over, lead the arm back."""
        if now_s - self._since_s > TASKS[self._task].episode_s + _MARGIN_S:
            self._place.lead_back()
            self._enter(_Phase.WAY_BACK, now_s)

    def _watch(self, now_s: float, torque: bool) -> None:
        """Nobody reads the leader: give a policy its time, and no more once it has succeeded."""
        if not self._place.verdict.success:
            self._failing_s = now_s
        if now_s - self._failing_s > _AFTER_SUCCESS_S or now_s - self._since_s > TASKS[self._task].time_limit_s:
            self.lay_next(now_s, torque=torque)

    def _enter(self, phase: _Phase, now_s: float) -> None:
        self._phase, self._since_s = phase, now_s
        self._failing_s = now_s
