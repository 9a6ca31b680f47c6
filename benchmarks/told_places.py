"""How far the demonstrations of the twin can be imitated by a policy that need not look.

    OMP_NUM_THREADS=1 python benchmarks/told_places.py
    OMP_NUM_THREADS=1 python benchmarks/told_places.py --same-start
    OMP_NUM_THREADS=1 python benchmarks/told_places.py --state-noise 0.1 --guesses 3 --place-error 0.012

The network that reads the chunk off the keypoints (`ChunkRegressor`) is told by the simulation where the named cube and
the bin are, at every moment, in place of what it would see. Recording, training and 30 unseen scenes a task take two
minutes on one core. What this policy does not manage is not a matter of vision: of how the demonstrations were made, of
how they are generalised, or of how chunks are played. The rows play the chunks of one network: the first
`n_action_steps` of each, and all of it where the arm stood still (`finish_chunk_when_still`, in standard deviations).

Measured:

    n_action_steps  still  pick-lift  pick-place  all   interval
    2                   0       9/30        1/30  17%   9% - 28%
    4                   0      28/30       19/30  78%  66% - 87%
    8                   0      29/30       26/30  92%  82% - 96%
    2                 0.3      24/30       25/30  82%  70% - 89%
    4                 0.3      30/30       24/30  90%  80% - 95%
    8                 0.3      29/30       26/30  92%  82% - 96%

The same with `--state-noise 0.1 --guesses 3`:

    n_action_steps  still  pick-lift  pick-place  all    interval
    2                   0      28/30       19/30  78%   66% - 87%
    4                   0      28/30       24/30  87%   76% - 93%
    8                   0      30/30       25/30  92%   82% - 96%
    2                 0.3      30/30       29/30  98%  91% - 100%
    4                 0.3      30/30       28/30  97%   89% - 99%
    8                 0.3      30/30       27/30  95%   86% - 98%

And with `--place-error 0.012` besides, in place of eyes that are wrong by so much in x and in y:

    n_action_steps  still  pick-lift  pick-place  all   interval
    2                   0      22/30       10/30  53%  41% - 65%
    4                   0      22/30       15/30  62%  49% - 73%
    8                   0      23/30       16/30  65%  52% - 76%
    2                 0.3      22/30       24/30  77%  65% - 86%
    4                 0.3      21/30       20/30  68%  56% - 79%
    8                 0.3      23/30       18/30  68%  56% - 79%
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from lerobot_vla_plugin.chunk_execution import ChunkExecution
from lerobot_vla_plugin.demonstrations import Demonstrator
from lerobot_vla_plugin.envs.simulated_arm import SimulatedArm, SimulatedLeader, steps_of_frame
from lerobot_vla_plugin.fast_record import attempts
from lerobot_vla_plugin.models.keypoints import ChunkRegressor
from lerobot_vla_plugin.progress import StepBar
from lerobot_vla_plugin.text_table import align
from lerobot_vla_plugin.twin.scenes import TASKS, draw_layout
from lerobot_vla_plugin.twin.world import World

FPS, CHUNK_SIZE, JOINTS = 10, 16, 6
PICKING = ("pick-lift", "pick-place")
LEARNING_RATE, BATCH_SIZE = 1e-3, 64
PLAYED = [(2, 0.0), (4, 0.0), (8, 0.0), (2, 0.3), (4, 0.3), (8, 0.3)]
_SCALE_M = 0.1  # of the table, so that places are numbers around 1


def told(world: World) -> list[float]:
    """What a policy would have to see: place of the named cube, place of the bin, and whether there is one."""
    layout = world.layout
    x_m, y_m, z_m = world.cube_m(layout.color)
    bin_x_m, bin_y_m = layout.bin_m if layout.has_bin else (0.0, 0.0)
    places_m = np.array([x_m, y_m, z_m, bin_x_m, bin_y_m])
    return [*places_m / _SCALE_M, float(layout.has_bin)]


class ToldArm(SimulatedArm):
    """An arm that notes, at every reading, where things are.

    Attributes:
        notes: What was noted.
        deviation_m: Of the error with which the cube's place on the table is noted, in [m].
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.notes: list[list[float]] = []
        self.deviation_m, self._error_m = 0.0, np.zeros(2)

    def draw_error(self, seed: int) -> None:
        """Note the cube beside its place from now on, always by the same."""
        self._error_m = np.random.default_rng((seed, 3)).normal(scale=self.deviation_m, size=2)

    def read(self):
        """As `SimulatedArm.read`."""
        x, y, *rest = told(self.world)
        error_x, error_y = self._error_m / _SCALE_M
        self.notes.append([x + error_x, y + error_y, *rest])
        return super().read()


@dataclass
class Samples:
    """Places (n, features), states (n, joints), chunks (n, chunk, joints), and which steps lie inside the episode."""

    places: Tensor
    states: Tensor
    chunks: Tensor
    inside: Tensor


def record(arm: ToldArm, episodes: Mapping[str, int], same_start: bool) -> Samples:
    """Frames of successful demonstrations, the tasks in turn."""
    demonstrator = Demonstrator(arm, SimulatedLeader(arm), None, FPS)
    columns: list[list] = [[], [], [], []]
    for demonstration in attempts(demonstrator, episodes, 0, varied_start=not same_start):
        frames, notes = demonstration.frames, arm.notes
        arm.notes = []
        if not demonstration.verdict.success:
            continue
        actions = np.array([frame.action for frame in frames])
        steps = np.arange(len(frames))[:, None] + np.arange(CHUNK_SIZE)
        columns[0] += notes
        columns[1] += [frame.state for frame in frames]
        columns[2] += list(actions[np.minimum(steps, len(frames) - 1)])
        columns[3] += list(steps < len(frames))
    return Samples(*(torch.tensor(np.array(column), dtype=torch.float32) for column in columns))


class ToldPolicy:
    """A regressor with the scales of its data; noise and guesses as `state_noise` and `num_guesses` of a policy."""

    def __init__(self, samples: Samples, noise: float, num_guesses: int) -> None:
        self._noise = noise
        self._regressor = ChunkRegressor(samples.places.shape[1], JOINTS, CHUNK_SIZE, num_guesses)
        self._state_mean, self._state_std = samples.states.mean(0), samples.states.std(0)
        self._mean, self._std = samples.chunks.mean(0), samples.chunks.std(0) + 0.5

    def train(self, samples: Samples, steps: int) -> None:
        """AdamW with a cosine, as the recipe of the twin has it."""
        optimizer = torch.optim.AdamW(self._regressor.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        with StepBar("train", steps, "steps") as bar:
            for step in range(steps):
                rows = torch.randint(len(samples.states), (BATCH_SIZE,))
                states = self.scale_states(samples.states[rows])
                guesses = self._regressor(samples.places[rows], states + self._noise * torch.randn_like(states))
                wanted = (samples.chunks[rows] - self._mean) / self._std
                losses = ChunkRegressor.losses(guesses, wanted, samples.inside[rows])
                optimizer.zero_grad()
                losses.mean().backward()
                optimizer.step()
                schedule.step()
                bar.advance_to(step + 1)

    def scale_states(self, states: Tensor) -> Tensor:
        """To mean 0, deviation 1."""
        return (states - self._state_mean) / self._state_std

    @torch.no_grad()
    def plan(self, places: Tensor, states: Tensor) -> Tensor:
        """Chunks in robot units."""
        return self._regressor(places, self.scale_states(states)).likeliest * self._std + self._mean


def attempt(policy: ToldPolicy, arm: ToldArm, task: str, seed: int, execution: ChunkExecution) -> bool:
    """One scene, until a cube has been taken or the time is over."""
    arm.draw_error(seed)
    arm.start(draw_layout(task, seed))
    execution.clear()
    for _ in range(round(TASKS[task].time_limit_s * FPS)):
        states = torch.tensor(arm.read(), dtype=torch.float32)[None]
        if execution.needs_chunks:
            chunks = policy.plan(torch.tensor(arm.notes[-1:], dtype=torch.float32), states)
            execution.add(chunks, policy.scale_states(states))
        arm.send(execution.pop()[0].numpy())
        if arm.advance(steps_of_frame(FPS)).taken is not None:
            break
    return arm.verdict.success


def row(policy: ToldPolicy, arm: ToldArm, num_steps: int, still: float, seeds: Sequence[int]) -> list[str]:
    """Successes of one way to play chunks."""
    execution = ChunkExecution(num_steps, still)
    successes = [sum(attempt(policy, arm, task, seed, execution) for seed in seeds) for task in PICKING]
    total = len(PICKING) * len(seeds)
    low, high = binomtest(sum(successes), total).proportion_ci(method="wilson")
    counts = [f"{count}/{len(seeds)}" for count in successes]
    return [f"{num_steps}", f"{still:g}", *counts, f"{sum(successes) / total:.0%}", f"{low:.0%} - {high:.0%}"]


def main() -> None:
    """Record, train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--episodes", type=int, nargs=2, default=[50, 50], help=f"demonstrations of {' and of '.join(PICKING)}"
    )
    parser.add_argument("--same-start", action="store_true", help="as of `lerobot-vla record-twin`")
    parser.add_argument("--steps", type=int, default=6000, help="optimiser steps")
    parser.add_argument("--state-noise", type=float, default=0.0, help="as --policy.state_noise")
    parser.add_argument("--guesses", type=int, default=1, help="as --policy.num_guesses")
    parser.add_argument(
        "--place-error",
        type=float,
        default=0.0,
        help="deviation of the error, constant for a scene, with which evaluations tell x and y of the cube, in [m]",
    )
    parser.add_argument("--scenes", type=int, default=30, help="unseen scenes of each task")
    parser.add_argument("--first-scene", type=int, default=1000, help="seed of the first of them")
    parser.add_argument("--seed", type=int, default=0, help="of the network")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    arm = ToldArm(World(visual=False))
    samples = record(arm, dict(zip(PICKING, arguments.episodes, strict=True)), arguments.same_start)
    policy = ToldPolicy(samples, arguments.state_noise, arguments.guesses)
    policy.train(samples, arguments.steps)
    arm.deviation_m = arguments.place_error
    seeds = range(arguments.first_scene, arguments.first_scene + arguments.scenes)
    lines = [["n_action_steps", "still", *PICKING, "all", "interval"]]
    lines += [row(policy, arm, *played, seeds) for played in PLAYED]
    print(f"{len(samples.states)} frames", *align(lines), sep="\n")


if __name__ == "__main__":
    main()
