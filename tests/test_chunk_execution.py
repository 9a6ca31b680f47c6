"""Which action comes next: a few steps of a chunk, or all of it where the arm stood still."""

import pytest
import torch

from lerobot_vla_plugin.chunk_execution import ChunkExecution

STEPS, CHUNK_SIZE = 2, 5


def _chunks(*numbers: int) -> torch.Tensor:
    """One chunk a row, whose actions are its number and their step."""
    return torch.tensor([[[number, step] for step in range(CHUNK_SIZE)] for number in numbers], dtype=torch.float32)


def _play(execution: ChunkExecution, states: list[list[list[float]]], rows: int = 2) -> list[list[tuple[int, int]]]:
    """Play until the given states are used up, one for each plan; chunks are numbered by their plans."""
    played, plans = [], iter(enumerate(states))
    while True:
        if execution.needs_chunks:
            if (plan := next(plans, None)) is None:
                return played
            execution.add(_chunks(*[plan[0]] * rows), torch.tensor(plan[1]))
        played.append([(int(number), int(step)) for number, step in execution.pop()])


def test_the_first_steps_of_each_chunk_are_played():
    played = _play(ChunkExecution(STEPS, still=0.0), [[[0.0], [0.0]]] * 3)
    assert played == [[(plan, step)] * 2 for plan in range(3) for step in range(STEPS)]


def test_a_row_that_stood_still_plays_its_whole_chunk_and_the_others_go_on_as_ever():
    # Moves by less than 0.1 in the first row only.
    states = [[[0.0, 1.0], [0.0, 1.0]], [[0.05, 0.95], [0.05, 1.2]], [[9.0, 9.0], [0.5, 1.2]], [[9.0, 9.0], [0.9, 1.2]]]
    played = _play(ChunkExecution(STEPS, still=0.1), states)
    first, second = zip(*played, strict=True)
    assert first == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3), (1, 4))
    assert second == ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0))


def test_stillness_is_measured_since_the_plan_and_not_since_the_last_action():
    states = [[[0.0], [0.0]], [[0.06], [0.06]], [[0.12], [0.12]], [[0.5], [0.5]]]
    played = _play(ChunkExecution(STEPS, still=0.1), states)
    # The second plan is of an arm that stood; the third of one that moved by 0.06 during a whole chunk.
    assert [row[0][0] for row in played] == [0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3]


def test_an_episode_starts_without_chunks():
    execution = ChunkExecution(STEPS, still=0.1)
    execution.add(_chunks(0), torch.zeros(1, 1))
    execution.pop()
    execution.clear()
    assert execution.needs_chunks
    with pytest.raises(IndexError, match="needs a chunk first"):
        execution.pop()
    execution.add(_chunks(1), torch.zeros(1, 1))  # still where it was, in the episode before
    assert [execution.pop().tolist() for _ in range(STEPS)] == [[[1, 0]], [[1, 1]]]
    assert execution.needs_chunks


def test_what_is_played_does_not_change_with_what_was_given():
    execution, chunks = ChunkExecution(STEPS, still=0.0), _chunks(0)
    execution.add(chunks, torch.zeros(1, 1))
    chunks.zero_()
    execution.pop()
    assert execution.pop().tolist() == [[0, 1]]
