"""Made-up joint motion that compresses like an arm's: minimum-jerk reaches between postures, with rests."""

import numpy as np
from numpy.typing import NDArray

# An encoder's tick of an STS3215 or XL430, in [degrees].
_TICK_DEG = 360 / 4096


def reaching_chunks(
    num: int, chunk_size: int = 50, joints: int = 6, seed: int = 0, rate_hz: float = 30.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Chunks of one long recording and the state at the first step of each.

    Args:
        num: Chunks.
        chunk_size: Steps of a chunk.
        joints: Joints; the last is a gripper that opens and closes.
        seed: Of the motion.
        rate_hz: Steps a second.

    Returns:
        Actions, (num, chunk_size, joints), and states, (num, joints), in [degrees], on a grid of encoder ticks.
    """
    generator = np.random.default_rng(seed)
    reaches = 40 + num // 20
    durations = generator.uniform(0.8, 2.5, reaches)
    postures = generator.normal(scale=35, size=(reaches + 1, joints))
    # Joints rest while others move, and the gripper knows two postures only.
    still = generator.random((reaches, joints)) < 0.3
    for reach in range(reaches):
        postures[reach + 1, still[reach]] = postures[reach, still[reach]]
    postures[:, -1] = generator.choice([5.0, 60.0], reaches + 1)
    times = np.arange(0, durations.sum(), 1 / rate_hz)
    starts = np.concatenate([[0], durations.cumsum()])
    reach = np.searchsorted(starts, times, side="right") - 1
    # The last third of each reach is a rest.
    share = np.clip((times - starts[reach]) / durations[reach] * 1.5, 0, 1)[:, None]
    course = share**3 * (10 - 15 * share + 6 * share**2)
    path = postures[reach] + course * (postures[reach + 1] - postures[reach])
    trembling = generator.normal(scale=0.15, size=path.shape).cumsum(axis=0)
    trembling -= np.linspace(0, 1, len(path))[:, None] * trembling[-1]
    path = np.round((path + 0.1 * trembling) / _TICK_DEG) * _TICK_DEG
    first = generator.integers(len(path) - chunk_size, size=num)
    return path[first[:, None] + np.arange(chunk_size)], path[np.maximum(first - 1, 0)]
