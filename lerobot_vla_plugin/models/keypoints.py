"""Where the things of an instruction are: a few points of each picture instead of its whole grid of tokens.

A policy that learns from a hundred demonstrations finds a cube sooner as the mean place of a heatmap (spatial softmax,
arXiv 1504.00702, section 4.2) than among hundreds of tokens, and it learns to heed the instruction only where the
instruction chooses what the heatmaps look for.

Shapes: b batch, n places of a picture, row by row, t language tokens, k points.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Key in the vision section of a backbone's configuration; absent where the language model reads all places.
NUM_KEYPOINTS = "num_keypoints"
MAX_CAMERAS = 8
_CODE_WIDTH = 32
_HIDDEN_WIDTH = 256
_TOKENS_PER_CAMERA = 4
_HUBER_BETA = 0.1  # in deviations of a joint
_REGRESSOR_WIDTH = 512
_SHARE_OF_ALL = 0.05
_SCORES_WEIGHT = 0.1
_SHARPNESS = 4.0  # deviation of a heatmap's scores at the start
_SPAN = 5  # language tokens: of bytes, about a word
_NUM_HASHES = 4096
_BASE, _PRIME = 1_000_003, 2_147_483_647


class InstructionCode(nn.Module):
    """Token ids -> a code in which any two instructions differ much, though they differ in one word of many.

    Spans of tokens are hashed into a table of random vectors, as fastText does with the letters of a word
    (arXiv 1607.04606), and so is the instruction as a whole. Codes that are learnt from nothing, by convolutions over
    letters say, are nearly the same for all instructions of a data set, and the policy then learns to do without.

    Args:
        width: Of the code.
    """

    def __init__(self, width: int):
        super().__init__()
        self.table = nn.Embedding(_NUM_HASHES, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, masks: Tensor) -> Tensor:
        """Token ids (b, t) and which of them are real (b, t) -> code (b, width)."""
        tokens = F.pad((tokens + 1) * masks, (0, _SPAN - 1))
        spans = tokens.unfold(1, _SPAN, 1)
        codes = self.table(_hash(spans)) * masks[..., None]
        parts = codes.sum(dim=1) * masks.sum(dim=1, keepdim=True).clamp_min(1).rsqrt()
        return self.norm(parts + self.table(_hash(tokens)))


def _hash(sequences: Tensor) -> Tensor:
    """Rows of integers (..., n) -> numbers below `_NUM_HASHES`, (...); zeros at the end change nothing."""
    result = torch.zeros_like(sequences[..., 0])
    factor = 1
    for column in sequences.unbind(dim=-1):
        result = (result + column * factor) % _PRIME
        factor = factor * _BASE % _PRIME
    return result % _NUM_HASHES


class Keypoints(NamedTuple):
    """What is left of the pictures.

    Attributes:
        tokens: For each camera, what the language model reads, (b, 4, width).
        features: Coordinates of all points, how sure they are, and the code of the instruction, (b, features).
    """

    tokens: list[Tensor]
    features: Tensor


class KeypointReader(nn.Module):
    """Pictures and an instruction -> a few tokens a camera, which hold coordinates.

    The instruction and the camera choose the queries; each query's scores over the places are a heatmap; of each
    heatmap there remain its mean place and how sure it is.

    Args:
        width: Of image tokens, language embeddings and the result.
        num_points: Heatmaps a camera.
    """

    def __init__(self, width: int, num_points: int):
        super().__init__()
        self._features_per_camera = 3 * num_points + _CODE_WIDTH
        self.code = InstructionCode(_CODE_WIDTH)
        self.cameras = nn.Embedding(MAX_CAMERAS, _CODE_WIDTH)
        self.queries = nn.Linear(_CODE_WIDTH, num_points * width)
        self.tokens = nn.Sequential(
            nn.Linear(self._features_per_camera, _HIDDEN_WIDTH),
            nn.SiLU(),
            nn.Linear(_HIDDEN_WIDTH, _TOKENS_PER_CAMERA * width),
        )
        self.instruction = nn.Linear(_CODE_WIDTH, width)
        # Heatmaps that are flat at the start all have their mean in the middle of the picture.
        nn.init.normal_(self.queries.weight, std=_SHARPNESS * (width * _CODE_WIDTH) ** -0.5)
        nn.init.normal_(self.queries.bias, std=_SHARPNESS * width**-0.5)

    def forward(self, images: list[Tensor], language: Tensor, language_masks: Tensor) -> Keypoints:
        """Read every camera.

        Args:
            images: Image tokens of each camera's square grid, (b, n, width).
            language: Token ids of the instruction, (b, t).
            language_masks: True for real tokens, (b, t).

        Raises:
            ValueError: More cameras than this has embeddings for.
        """
        if len(images) > MAX_CAMERAS:
            raise ValueError(f"keypoints: expected at most {MAX_CAMERAS} cameras, got {len(images)}")
        instruction = self.code(language, language_masks)
        found = [self._locate(image, instruction + self.cameras.weight[i]) for i, image in enumerate(images)]
        tokens = [self.tokens(features).unflatten(1, (_TOKENS_PER_CAMERA, -1)) for features in found]
        return Keypoints(tokens, torch.cat(found, dim=1))

    def num_features(self, num_cameras: int) -> int:
        """Width of `Keypoints.features`."""
        return num_cameras * self._features_per_camera

    def embed_instruction(self, language: Tensor, masks: Tensor) -> Tensor:
        """One token that stands for the instruction, (b, 1, width); arguments as `forward` has them."""
        return self.instruction(self.code(language, masks))[:, None]

    def _locate(self, image: Tensor, code: Tensor) -> Tensor:
        queries = self.queries(code).unflatten(1, (-1, image.shape[2]))
        # In float32: a mean over hundreds of places is to be finer than a place.
        scores = (queries @ image.transpose(1, 2)).float()
        places = image_places(image.shape[1], image.device)
        points = scores.softmax(dim=2) @ places
        sureness = scores.amax(dim=2, keepdim=True) - scores.mean(dim=2, keepdim=True)
        found = torch.cat([points, sureness / 8], dim=2).flatten(1).to(code.dtype)
        return torch.cat([found, code], dim=1)


def image_places(count: int, device: torch.device) -> Tensor:
    """Coordinates (x, y) of the places of a square grid in [-1, 1], row by row, (count, 2)."""
    side = round(count**0.5)
    if side * side != count:
        raise ValueError(f"keypoints: expected a square grid of places, got {count}")
    axis = torch.linspace(-1, 1, side, device=device)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([columns.flatten(), rows.flatten()], dim=1)


class ChunkGuesses(NamedTuple):
    """What keypoints and state suggest to do.

    Attributes:
        chunks: The guesses of each sample, normalised, (b, g, chunk, joints).
        scores: Logits of which one it is, (b, g).
    """

    chunks: Tensor
    scores: Tensor

    @property
    def likeliest(self) -> Tensor:
        """The guess that is the likeliest, (b, chunk, joints)."""
        return self.chunks[torch.arange(len(self.chunks), device=self.chunks.device), self.scores.argmax(dim=1)]


class ChunkRegressor(nn.Module):
    """Keypoints and state -> guesses of the whole chunk.

    What the pictures show is learnt from their error within minutes; squared errors of noisy chunks tell the pictures'
    side little, and it takes several times as many steps until the instruction is heeded. Knowledge insulation (arXiv
    2505.23705) trains its backbone on tokens for the same reason.

    Beside a cube one demonstration has begun to close the jaws and the other has not. The mean of both closes them half
    and opens them again; one of several guesses goes through with it (multiple hypotheses, arXiv 1612.00197).

    Args:
        num_features: Width of the keypoints' features.
        num_joints: Joints.
        chunk_size: Steps of a chunk.
        num_guesses: How many.
    """

    def __init__(self, num_features: int, num_joints: int, chunk_size: int, num_guesses: int = 1):
        super().__init__()
        self.chunk_size, self.num_guesses = chunk_size, num_guesses
        self._num_scores = num_guesses if num_guesses > 1 else 0
        self.layers = nn.Sequential(
            nn.Linear(num_features + num_joints, _REGRESSOR_WIDTH),
            nn.SiLU(),
            nn.Linear(_REGRESSOR_WIDTH, _REGRESSOR_WIDTH),
            nn.SiLU(),
            nn.Linear(_REGRESSOR_WIDTH, self._num_scores + num_guesses * chunk_size * num_joints),
        )

    def forward(self, features: Tensor, states: Tensor) -> ChunkGuesses:
        """Features (b, features) and states (b, joints) -> guesses, in float32."""
        found = self.layers(torch.cat([features, states.to(features.dtype)], dim=1)).float()
        chunks = found[:, self._num_scores :].unflatten(1, (self.num_guesses, self.chunk_size, -1))
        return ChunkGuesses(
            chunks, found[:, : self._num_scores] if self._num_scores else torch.zeros_like(found[:, :1])
        )

    @staticmethod
    def losses(guesses: ChunkGuesses, actions: Tensor, inside: Tensor) -> Tensor:
        """Huber loss of the guess that is the nearest, with a little of the others', and which one that is; (b,).

        Args:
            guesses: As `forward` gives them.
            actions: What was to be guessed, scaled to a deviation of about 1, (b, chunk, joints).
            inside: Which of its steps were recorded, (b, chunk).
        """
        wanted = actions[:, None].expand_as(guesses.chunks)
        errors = F.smooth_l1_loss(guesses.chunks, wanted, beta=_HUBER_BETA, reduction="none").mean(dim=3)
        errors = (errors * inside[:, None]).sum(dim=2) / inside.sum(dim=1, keepdim=True).clamp_min(1)
        nearest = errors.min(dim=1)
        # Without a share of it a guess that is never the nearest would never learn.
        of_chunks = (1 - _SHARE_OF_ALL) * nearest.values + _SHARE_OF_ALL * errors.mean(dim=1)
        of_scores = F.cross_entropy(guesses.scores, nearest.indices, reduction="none")
        return of_chunks + _SCORES_WEIGHT * of_scores
