"""Tables and sentences about an open-loop check, as `lerobot-vla demo` and `lerobot-vla plot` print them."""

import numpy as np

from .open_loop_result import HOLD_STILL, POLICY, TOKENIZER, OpenLoopResult, spread
from .text_table import align

_STEPS_SHOWN = 6


def format_errors(result: OpenLoopResult) -> str:
    """Errors, one row a joint and one column a predictor; of the policy also the tail.

    Args:
        result: The open-loop check.
    """
    others = [name for name in result.predictors if name != POLICY]
    rows = [["", POLICY, "p99", "max", *others]]
    for index, (joint, unit) in enumerate(zip(result.joints, result.units, strict=True)):
        values = [result.errors[POLICY], result.percentile_99, result.largest, *(result.errors[n] for n in others)]
        rows.append([f"{joint} [{unit}]", *(f"{value[index]:.2f}" for value in values)])
    means = [f"{result.mean_error(name):.2f}" for name in (POLICY, *others)]
    rows.append([f"mean [{result.mean_unit}]", means[0], "", "", *means[1:]])
    return "\n".join([f"  Open-loop error (mean absolute), {describe_episodes(result)}:", *align(rows)])


def format_steps(result: OpenLoopResult) -> str:
    """Errors at some steps of the chunk: how far ahead the policy can be trusted.

    Args:
        result: The open-loop check.
    """
    by_step = {name: result.error_by_step(name) for name in (POLICY, HOLD_STILL)}
    present = np.flatnonzero(np.isfinite(by_step[POLICY]))
    shown = present[spread(len(present), _STEPS_SHOWN)]
    head = [f"{result.steps[step] / result.fps_hz:.2f} s" for step in shown]
    rows = [[f"steps ahead [{result.mean_unit}]", *head]]
    rows += [[name, *(f"{errors[step]:.2f}" for step in shown)] for name, errors in by_step.items()]
    return "\n".join(["  The same along the chunk:", *align(rows)])


def describe_episodes(result: OpenLoopResult) -> str:
    """Which frames of which episodes were looked at, and whether the checkpoint has seen them.

    Args:
        result: The open-loop check.
    """
    frames = sum(len(episode.frames) for episode in result.episodes)
    named = [f"{episode.episode} ({episode.standing})" for episode in result.episodes]
    return f"{frames} frames of episode{'s' * (len(named) > 1)} {', '.join(named)}"


def verdicts(result: OpenLoopResult) -> list[str]:
    """What the errors mean, in one sentence each.

    Args:
        result: The open-loop check.
    """
    better = "beats both baselines" if result.beats_baselines else "DOES NOT beat both baselines"
    sees = (
        "It looks at its images: with those of other frames it gets clearly worse."
        if result.looks_at_images
        else "With the images of other frames it is hardly worse: it may not look at them; a run in closed loop tells."
    )
    sentences = [f"The policy {better}.", sees]
    if TOKENIZER in result.predictors:
        lost = result.mean_error(TOKENIZER)
        sentences.append(f"Turning recorded actions into tokens and back alone costs {lost:.2f} {result.mean_unit}.")
    if result.token_counts.keys() >= {POLICY, TOKENIZER}:
        predicted, recorded = (
            f"{counts.mean():.1f} ({counts.min()} to {counts.max()})"
            for counts in (result.token_counts[name] for name in (POLICY, TOKENIZER))
        )
        sentences.append(f"Its chunks take {predicted} tokens, the recorded ones {recorded}.")
    return sentences
