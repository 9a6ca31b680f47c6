"""The figures of evaluations in words, side by side."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .evaluation_facts import Evaluation

UNKNOWN = "–"


def compare(evaluations: Sequence[Evaluation]) -> list[tuple[str, list[str]]]:
    """Name of a figure, and what it is in each evaluation.

    Args:
        evaluations: The evaluations.
    """
    tasks = list(dict.fromkeys(task for evaluation in evaluations for task in evaluation.tasks))
    rows = [(name, [tell(evaluation.summary["overall"]) for evaluation in evaluations]) for name, tell in _ROWS]
    per_task = [(f"success in {task}", [_of_task(evaluation, task) for evaluation in evaluations]) for task in tasks]
    not_counted = [describe_counts(evaluation.summary["not_counted"]) or "0" for evaluation in evaluations]
    return [*rows[:3], *(per_task if len(tasks) > 1 else []), *rows[3:], ("not counted", not_counted)]


def describe_success(figures: Mapping[str, Any]) -> str:
    """Successes, rate and interval.

    Args:
        figures: Of an evaluation or a task, as in `summary.json`.
    """
    if not figures["n"]:
        return "no episode that counts"
    return f"{_succeeded(figures)}, {_rate(figures)} ({_interval(figures)})"


def describe_counts(counts: Mapping[Any, int]) -> str:
    """Names with their numbers.

    Args:
        counts: Name -> how many.
    """
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _of_task(evaluation: Evaluation, task: str) -> str:
    figures = evaluation.summary["per_task"].get(task)
    return describe_success(figures) if figures else UNKNOWN


def _succeeded(figures: Mapping[str, Any]) -> str:
    return f"{figures['successes']} of {figures['n']}"


def _rate(figures: Mapping[str, Any]) -> str:
    return UNKNOWN if figures["success"] is None else f"{figures['success']:.0%}"


def _interval(figures: Mapping[str, Any]) -> str:
    return "{:.0%} to {:.0%}".format(*figures["wilson_95"]) if figures["wilson_95"] else UNKNOWN


def _time(figures: Mapping[str, Any]) -> str:
    time_s = figures["median_time_to_success_s"]
    return UNKNOWN if time_s is None else f"{time_s:.1f} s"


def _other_cube(figures: Mapping[str, Any]) -> str:
    taken = figures["taken"]
    return f"{taken.get('other', 0)} of {sum(taken.values())}" if taken else UNKNOWN


def _interventions(figures: Mapping[str, Any]) -> str:
    if not figures["n"]:
        return UNKNOWN
    counts = figures["interventions"]
    return f"{sum(counts.values()) / figures['n']:.1f} an episode" + (f": {describe_counts(counts)}" if counts else "")


def _jerk(which: str) -> Callable[[Mapping[str, Any]], str]:
    def tell(figures: Mapping[str, Any]) -> str:
        jerk = figures["jerk_deg_s3"][which]
        return UNKNOWN if jerk is None else f"{jerk:.0f} deg/s³"

    return tell


def _control_rate(figures: Mapping[str, Any]) -> str:
    rate = figures["control_rate"]
    if rate is None:
        return UNKNOWN
    return (
        f"{rate['median_hz']:.1f} Hz; 95% of the intervals up to {rate['p95_interval_s'] * 1000:.0f} ms, the longest "
        f"{rate['longest_pause_s'] * 1000:.0f} ms; {rate['late_steps']} late"
    )


_ROWS: Sequence[tuple[str, Callable[[Mapping[str, Any]], str]]] = (
    ("succeeded", _succeeded),
    ("success rate", _rate),
    ("95% interval (Wilson)", _interval),
    ("median time to success", _time),
    ("other cube taken", _other_cube),
    ("interventions of the guard", _interventions),
    ("jerk, commanded (median)", _jerk("commanded")),
    ("jerk, measured (median)", _jerk("measured")),
    ("control rate", _control_rate),
)
