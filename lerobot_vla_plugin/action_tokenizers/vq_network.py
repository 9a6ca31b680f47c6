"""A VQ-VAE of one joint's path through a chunk, with residual levels (VQ-BeT, arXiv 2403.03181).

Every joint of a chunk is a latent position, and all joints share the encoder, the codes and the decoder: on the few
episodes that an arm's owner has, codes for whole poses only fit the motion that they were made from.

Shapes: m paths (the joints of all chunks), c steps of a chunk, d width of a latent.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# On chunks of 50 steps, 10 to 24 serve equally well.
_LATENT_WIDTH = 16
_HIDDEN_WIDTH = 128
# Partial sums kept while the levels of a path are chosen; against 1 this takes a seventh off the error.
_BEAM_WIDTH = 8
_COMMITMENT = 0.25  # van den Oord et al., arXiv 1711.00937, equation 3


class SkipMLP(nn.Module):
    """A linear map, and a small network that learns what it lacks."""

    def __init__(self, width_in: int, width_out: int):
        super().__init__()
        self.skip = nn.Linear(width_in, width_out)
        self.hidden = nn.Linear(width_in, _HIDDEN_WIDTH)
        self.out = nn.Linear(_HIDDEN_WIDTH, width_out)

    def forward(self, values: Tensor) -> Tensor:
        return self.skip(values) + self.out(F.gelu(self.hidden(values)))


class PathVQVAE(nn.Module):
    """Encoder, residual codebooks and decoder of a joint's path.

    Made without weights, on the meta device: they are either loaded or set by `vq_training`.

    Attributes:
        codebooks: Codes of each level, (levels, codes, d).
    """

    def __init__(self, chunk_size: int, codes: int, levels: int):
        super().__init__()
        latent_width = min(_LATENT_WIDTH, chunk_size)
        with torch.device("meta"):
            self.encoder = SkipMLP(chunk_size, latent_width)
            self.decoder = SkipMLP(latent_width, chunk_size)
            self.codebooks = nn.Parameter(torch.empty(levels, codes, latent_width))

    def encode(self, paths: Tensor) -> Tensor:
        """Codes of paths (m, c), as (m, levels)."""
        return nearest_codes(self.encoder(paths), self.codebooks, _BEAM_WIDTH)

    def decode(self, codes: Tensor) -> Tensor:
        """Paths (m, c) of codes (m, levels)."""
        return self.decoder(self.code_vectors(codes).sum(dim=1))

    def code_vectors(self, codes: Tensor) -> Tensor:
        """What each level adds, (m, levels, d), for codes (m, levels)."""
        levels, size, _ = self.codebooks.shape
        # Indexing the parameter instead would add up its gradient in whatever order threads come, not the same twice.
        return F.embedding(codes + size * torch.arange(levels), self.codebooks.flatten(0, 1))

    def loss(self, paths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Squared error of decoded paths, with the terms that pull latents and codes together.

        The decoder's gradient reaches the codes as it is and the encoder straight through them.

        Args:
            paths: (m, c).

        Returns:
            The loss, the codes (m, levels), and what each level was left to quantise, (m, levels, d).
        """
        latents = self.encoder(paths)
        with torch.no_grad():
            codes = nearest_codes(latents, self.codebooks, beam_width=1)
        vectors = self.code_vectors(codes)
        quantized = vectors.sum(dim=1)
        decoded = self.decoder(quantized + latents - latents.detach())
        loss = (
            (decoded - paths).square().sum(dim=1)
            + (latents.detach() - quantized).square().sum(dim=1)
            + _COMMITMENT * (latents - quantized.detach()).square().sum(dim=1)
        ).mean()
        left = latents.detach()[:, None] - (vectors.cumsum(dim=1) - vectors).detach()
        return loss, codes, left


def nearest_codes(latents: Tensor, codebooks: Tensor, beam_width: int) -> Tensor:
    """One code a level so that their sum is near each latent (m, d): beam search, greedy with a width of 1.

    Args:
        latents: (m, d).
        codebooks: (levels, codes, d).
        beam_width: Partial sums kept from level to level.

    Returns:
        Codes, (m, levels).
    """
    left = latents[:, None]
    chosen = torch.empty(len(latents), 1, 0, dtype=torch.long)
    for codebook in codebooks:
        # |left - code|^2; every sum so far competes with every other of its latent.
        distances = left.square().sum(dim=2, keepdim=True) - 2 * left @ codebook.T + codebook.square().sum(dim=1)
        distances = distances.flatten(1)
        best = distances.topk(min(beam_width, distances.shape[1]), dim=1, largest=False).indices
        parent, code = best // len(codebook), best % len(codebook)
        left = left.take_along_dim(parent[:, :, None], dim=1) - codebook[code]
        chosen = torch.cat([chosen.take_along_dim(parent[:, :, None], dim=1), code[:, :, None]], dim=2)
    return chosen[:, 0]
