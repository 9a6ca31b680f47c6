"""Fits a `PathVQVAE`: principal components and k-means first, then gradient descent on what they give.

Shapes: m paths (the joints of all chunks), c steps of a chunk, d width of a latent.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .vq_network import PathVQVAE, SkipMLP, nearest_codes

_BATCH = 1024
_LEARNING_RATE = 1e-3
# Adam's first steps are as large as any and would spoil what k-means found.
_WARMUP_STEPS = 25
_KMEANS_PATHS_PER_CODE = 64
_KMEANS_ROUNDS = 12
# How far recorded paths are varied, see `draw_paths`.
_UNCHANGED_SHARE = 0.25
_LARGEST_SCALE = 2.0
_SHIFT_STD = 0.3
# A code that no path chose for so many steps is put where paths are; not at the end, where it could not settle.
_REVIVE_EVERY = 50
_REVIVE_UNTIL = 0.8


@contextmanager
def _one_thread() -> Iterator[None]:
    # Several threads round the same sums otherwise, depending on how many they are, and with batches so small they are
    # no faster.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def fit_network(paths: Tensor, codes: int, levels: int, steps: int, show_progress: bool) -> PathVQVAE:
    """Fit a VQ-VAE to paths (m, c); the same paths give the same weights, and no global generator is touched.

    Args:
        paths: Normalised paths of joints, (m, c), float32.
        codes: Codes of a level.
        levels: Residual levels.
        steps: Steps of gradient descent.
        show_progress: Draw a progress bar.
    """
    generator = torch.Generator().manual_seed(0)
    network = PathVQVAE(paths.shape[1], codes, levels).to_empty(device="cpu")
    with tqdm(total=levels + steps, desc="fitting VQ", disable=not show_progress) as progress, torch.enable_grad():
        _initialise(network, draw_paths(paths, _KMEANS_PATHS_PER_CODE * codes, generator), generator, progress)
        _descend(network, paths, steps, generator, progress)
    return network.requires_grad_(False)


def draw_paths(paths: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw paths with replacement and vary most of them: smaller or larger motion, about another place.

    A few episodes hold few motions. Without this the codes fit those alone, and on two episodes of real teleoperation
    the error on a third was larger by three tenths.

    Args:
        paths: (m, c).
        count: How many to draw.
        generator: Source of randomness.

    Returns:
        (count, c).
    """
    drawn = paths[torch.randint(len(paths), (count,), generator=generator)]
    middle = drawn.mean(dim=1, keepdim=True)
    scale = _LARGEST_SCALE * torch.rand(count, 1, generator=generator)
    shift = _SHIFT_STD * torch.randn(count, 1, generator=generator)
    unchanged = torch.rand(count, 1, generator=generator) < _UNCHANGED_SHARE
    return torch.where(unchanged, drawn, middle + scale * (drawn - middle) + shift)


@torch.no_grad()
def _initialise(network: PathVQVAE, paths: Tensor, generator: torch.Generator, progress: tqdm) -> None:
    """Encoder and decoder begin as the principal components of paths, and the codes as k-means of what is left."""
    mean = paths.mean(dim=0)
    width = network.codebooks.shape[2]
    components = torch.linalg.eigh(torch.cov(paths.T).reshape(len(mean), len(mean))).eigenvectors[:, -width:]
    _start_linear(network.encoder, components.T, -mean @ components, generator)
    _start_linear(network.decoder, components, mean, generator)
    left = network.encoder(paths)
    for codebook in network.codebooks:
        codebook.copy_(_kmeans(left, len(codebook), generator))
        left -= codebook[_nearest(left, codebook)]
        progress.update()


def _start_linear(module: SkipMLP, weight: Tensor, bias: Tensor, generator: torch.Generator) -> None:
    module.skip.weight.copy_(weight)
    module.skip.bias.copy_(bias)
    nn.init.kaiming_uniform_(module.hidden.weight, nonlinearity="linear", generator=generator)
    for parameter in (module.hidden.bias, module.out.weight, module.out.bias):
        nn.init.zeros_(parameter)


def _kmeans(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Centres (count, d) of points (m, d); one that loses all its points begins anew at one of them."""
    centres = points[torch.randperm(len(points), generator=generator)[:count]]
    for _ in range(_KMEANS_ROUNDS):
        nearest = _nearest(points, centres)
        held = torch.bincount(nearest, minlength=count)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        elsewhere = points[torch.randint(len(points), (count,), generator=generator)]
        centres = torch.where(held > 0, sums / held.clamp(min=1), elsewhere)
    return centres


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    return nearest_codes(points, centres[None], beam_width=1)[:, 0]


def _descend(network: PathVQVAE, paths: Tensor, steps: int, generator: torch.Generator, progress: tqdm) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / _WARMUP_STEPS, 1 - step / steps)
    )
    chosen = torch.zeros(network.codebooks.shape[:2], dtype=torch.bool)
    for step in range(1, steps + 1):
        loss, codes, left = network.loss(draw_paths(paths, _BATCH, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        chosen[torch.arange(codes.shape[1]), codes] = True
        if step % _REVIVE_EVERY == 0:
            if step <= _REVIVE_UNTIL * steps:
                revive_codes(network, chosen, left, generator)
            chosen.zero_()
            progress.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
        progress.update()


@torch.no_grad()
def revive_codes(network: PathVQVAE, chosen: Tensor, left: Tensor, generator: torch.Generator) -> None:
    """Move codes that nothing chose to where something is left to quantise.

    Args:
        network: Whose codes.
        chosen: Codes that some path chose, (levels, codes).
        left: What paths left to each level, (m, levels, d).
        generator: Source of randomness.
    """
    for level, codebook in enumerate(network.codebooks):
        dead = torch.nonzero(~chosen[level])[:, 0]
        codebook[dead] = left[torch.randint(len(left), (len(dead),), generator=generator), level]
