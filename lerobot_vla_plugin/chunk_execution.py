"""Which action of which chunk comes next, for every row of a batch.

Shapes: b batch, c steps of a chunk, j joints.
"""

import torch
from torch import Tensor


class ChunkExecution:
    """Plays the first steps of each chunk, and all of it where the arm stood still since the plan before.

    A policy that learns postures from postures stops where what it sees asks for next to nothing: beside a cube, say,
    with jaws that it would close, had it only begun. Its chunk does go on to close them; a plan after two steps sees
    the same picture and begins anew. So a row that did not move goes through with its chunk.

    Args:
        num_steps: Steps of a chunk that are played.
        still: A row in which no joint moved further than this since it was planned last, in the unit of the states,
            plays its whole chunk. 0 never does.
    """

    def __init__(self, num_steps: int, still: float) -> None:
        self._num_steps, self._still = num_steps, still
        self.clear()

    def clear(self) -> None:
        """Forget all chunks, at the start of an episode."""
        self._chunks: Tensor | None = None
        self._states = self._next = self._ends = torch.empty(0)

    @property
    def needs_chunks(self) -> bool:
        """Whether some row has nothing left to play."""
        return self._chunks is None or bool((self._next >= self._ends).any())

    def add(self, chunks: Tensor, states: Tensor) -> None:
        """Take new chunks for the rows that need one; the others go on with theirs.

        Args:
            chunks: One for each row, (b, c, j).
            states: Where the joints are now, (b, j).
        """
        num_rows, chunk_size = chunks.shape[:2]
        played = torch.full((num_rows,), self._num_steps, device=chunks.device)
        if self._chunks is None:
            self._chunks, self._states, self._ends = chunks.clone(), states.clone(), played
            self._next = torch.zeros_like(played)
            return
        rows = self._next >= self._ends
        stands = (states - self._states).abs().amax(dim=1) < self._still
        self._ends = torch.where(rows, torch.where(stands, chunk_size, played), self._ends)
        self._next = torch.where(rows, 0, self._next)
        self._chunks = torch.where(rows[:, None, None], chunks, self._chunks)
        self._states = torch.where(rows[:, None], states, self._states)

    def pop(self) -> Tensor:
        """The next action of every row, (b, j).

        Raises:
            IndexError: Some row has none left.
        """
        if self._chunks is None or self.needs_chunks:
            raise IndexError("expected an action in every row, but some row needs a chunk first")
        actions = self._chunks[torch.arange(len(self._next), device=self._next.device), self._next]
        self._next = self._next + 1
        return actions
