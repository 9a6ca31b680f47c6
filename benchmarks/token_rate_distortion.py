"""What shortens FAST tokens at the same error, and what does not: every idea that was tried, on recorded motion.

    python benchmarks/token_rate_distortion.py --data <parquet file or LeRobot data set>   # 1,000 frames: 15 minutes
    python benchmarks/token_rate_distortion.py --data ... --only winners

Each idea is fitted to all episodes but one and tested on that one. It runs at several scales, and the table says how
many tokens a chunk takes (mean and spread over the folds) where its mean error is that of plain FAST at scale 10, and
what the largest error is there. The last part asks whether the tokens are as predictable as plain ones.
"""

import argparse
import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct
from scipy.interpolate import BSpline

from lerobot_vla_plugin.action_tokenizers.chunk_codec import ChunkCodec
from lerobot_vla_plugin.action_tokenizers.fast import FastTokenizer
from lerobot_vla_plugin.action_tokenizers.fast_rate_distortion import TokenChooser
from lerobot_vla_plugin.tokenizer_joints import RecordedJoints, read_joints

_PLAIN_SCALE = 10
_BEST: dict[str, Any] = {"relative": True, "equal_ranges": True, "vocab_size": 2048}
_RATE_DISTORTION = {**_BEST, "rate_distortion": True}


@dataclass(frozen=True)
class Data:
    """Chunks to fit to and chunks to test on, with their states, in robot units."""

    fit: tuple[NDArray, NDArray]
    test: tuple[NDArray, NDArray]
    joints: RecordedJoints


# Ids of normalised chunks.
Encode = Callable[[FastTokenizer, NDArray], list[list[int]]]


@dataclass(frozen=True)
class Idea:
    """One row of the table.

    Attributes:
        name: What is tried.
        options: Of `ChunkCodec.fit`.
        scales: To run it at.
        basis: Orthonormal change of normalised chunks before encoding, from those to fit to: along time and joints.
        encode: Ids of normalised chunks; None for the tokenizer's own.
        refit: Vocabulary from normalised chunks, when it is not to be that of the rounded coefficients.
        predict: Offset of the states that actions are relative to, from the chunks to fit to.
        stretch: Speeds of further copies of the chunks that the vocabulary is fitted to.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    scales: Sequence[float] = (10, 14, 20, 28)
    basis: Callable[[NDArray], tuple[NDArray, NDArray]] | None = None
    encode: Encode | None = None
    refit: Callable[[FastTokenizer, NDArray], FastTokenizer] | None = None
    predict: Callable[[NDArray, NDArray, NDArray], NDArray] | None = None
    stretch: Sequence[float] = ()


def run(idea: Idea, data: Data, scale: float) -> tuple[float, float, float]:
    """Mean tokens, mean error and largest error on the test chunks."""
    (actions, states), (test_actions, test_states) = data.fit, data.test
    if idea.predict:
        states, test_states = (idea.predict(actions, states, at) for at in (states, test_states))
    names = data.joints.joint_names
    codec = ChunkCodec.fit(actions, states, names, **idea.options, scale=scale).with_span(*data.joints.span)
    chunks = codec.scaling.normalize(actions, states)
    in_time, across = idea.basis(chunks) if idea.basis else (np.eye(chunks.shape[1]), np.eye(chunks.shape[2]))
    turned = in_time @ chunks @ across
    tokenizer = codec.tokenizer
    assert isinstance(tokenizer, FastTokenizer)
    if idea.basis or idea.stretch:
        copies = [turned, *(stretched(turned, speed) for speed in idea.stretch)]
        options = {name: idea.options[name] for name in ("vocab_size", "rate_distortion") if name in idea.options}
        tokenizer = FastTokenizer.fit(np.concatenate(copies), scale=scale, **options)
    if idea.refit:
        tokenizer = idea.refit(tokenizer, turned)
    ids = (idea.encode or FastTokenizer.encode)(
        tokenizer, in_time @ codec.scaling.normalize(test_actions, test_states) @ across
    )
    decoded = in_time.T @ tokenizer.decode(ids, *chunks.shape[1:]) @ across.T
    errors = np.abs(codec.scaling.unnormalize(decoded, test_states) - test_actions)
    return float(np.mean([len(sequence) for sequence in ids])), float(errors.mean()), float(errors.max())


def stretched(chunks: NDArray, speed: float) -> NDArray:
    """The first part of each chunk, slowed down to the whole length; speed < 1."""
    times = np.arange(chunks.shape[1])
    low = np.floor(times * speed).astype(int)
    share = (times * speed - low)[:, None]
    return (1 - share) * chunks[:, low] + share * chunks[:, low + 1]


def dst7(chunks: NDArray) -> tuple[NDArray, NDArray]:
    """Sines that begin at zero, as a motion does that begins at the present state (video coding's DST-VII)."""
    steps, joints = chunks.shape[1:]
    order = np.arange(steps)
    sines = np.sin(np.pi * (2 * order[:, None] + 1) * (order + 1) / (2 * steps + 1))
    sines /= np.linalg.norm(sines, axis=1, keepdims=True)
    # The tokenizer's cosine transform follows; undone here, so that it sees the coefficients of the sines.
    return np.asarray(idct(sines, axis=0, norm="ortho")), np.eye(joints)


def principal_joints(chunks: NDArray) -> tuple[NDArray, NDArray]:
    """Joints turned to their principal directions of motion."""
    coefficients = np.asarray(dct(chunks, axis=1, norm="ortho"))[:, 1:].reshape(-1, chunks.shape[2])
    return np.eye(chunks.shape[1]), np.linalg.eigh(coefficients.T @ coefficients)[1][:, ::-1]


def dead_zone(threshold: float) -> Encode:
    """Round towards zero: up to the next whole number only above this fraction."""

    def encode(tokenizer: FastTokenizer, chunks: NDArray) -> list[list[int]]:
        exact = np.asarray(dct(chunks, axis=1, norm="ortho")) * tokenizer.scale
        rounded = np.sign(exact) * np.floor(np.abs(exact) + 1 - threshold)
        fewer = np.asarray(idct(rounded / tokenizer.scale, axis=1, norm="ortho"))
        return tokenizer.encode_coefficients(tokenizer.coefficients(fewer))

    return encode


def fewest_tokens(tokenizer: FastTokenizer, chunks: NDArray) -> list[list[int]]:
    """Plain rounding, but the shortest row of ids that writes it instead of greedy merges."""
    # So low a price changes no coefficient.
    chooser = TokenChooser(tokenizer.spellings, price=2**-10)
    return [written.ids for written in chooser.cheapest(tokenizer.coefficients(chunks))]


def priced(price: float) -> Encode:
    """Another price of a token, without a bound of the largest error."""

    def encode(tokenizer: FastTokenizer, chunks: NDArray) -> list[list[int]]:
        targets = np.asarray(dct(chunks, axis=1, norm="ortho")) * tokenizer.scale
        return [written.ids for written in TokenChooser(tokenizer.spellings, price=price).cheapest(targets)]

    return encode


def refitted(tokenizer: FastTokenizer, chunks: NDArray) -> FastTokenizer:
    """Merges learnt from what rate-distortion optimisation writes instead of from plain rounding."""
    written = tokenizer.decode(tokenizer.encode(chunks), *chunks.shape[1:])
    return FastTokenizer.fit(written, scale=tokenizer.scale, vocab_size=2048, rate_distortion=True)


def predicted_start(actions: NDArray, states: NDArray, at: NDArray) -> NDArray:
    """States shifted to where the first action was with such a state, by ridge regression."""
    inputs, asked = (np.column_stack([values, np.ones(len(values))]) for values in (states, at))
    ridge = np.diag([0.1 * len(states)] * states.shape[1] + [0])
    return at + asked @ np.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ (actions[:, 0] - states))


WINNERS = [
    Idea("plain FAST, vocabulary 1024", scales=(5, 7, 10, 14)),
    Idea("vocabulary 2048", {"vocab_size": 2048}, scales=(5, 7, 10, 14)),
    Idea("relative to the state", {"relative": True}),
    Idea("equal ranges", {"equal_ranges": True}),
    Idea("relative, equal ranges", {"relative": True, "equal_ranges": True}),
    Idea("relative, equal ranges, vocabulary 2048", _BEST),
    Idea("all of these and rate-distortion", _RATE_DISTORTION),
]
OTHERS = [
    Idea("rate-distortion, vocabulary 1024", _RATE_DISTORTION | {"vocab_size": 1024}),
    Idea("rate-distortion, vocabulary 4096", _RATE_DISTORTION | {"vocab_size": 4096}),
    Idea("rate-distortion, own range for each joint", _RATE_DISTORTION | {"equal_ranges": False}),
    Idea("rate-distortion, absolute", _RATE_DISTORTION | {"relative": False}),
    Idea("price 1, errors unbounded", _BEST, encode=priced(1.0)),
    Idea("price 2, errors unbounded", _BEST, encode=priced(2.0)),
    Idea("price 4, errors unbounded", _BEST, encode=priced(4.0)),
    Idea("dead zone 0.6 instead", _BEST, encode=dead_zone(0.6)),
    Idea("dead zone 0.7 instead", _BEST, encode=dead_zone(0.7)),
    Idea("fewest tokens for plain rounding instead", _BEST, encode=fewest_tokens),
    Idea("and merges refitted to what is written", _RATE_DISTORTION, refit=refitted),
    Idea("and vocabulary also from stretched chunks", _RATE_DISTORTION, stretch=(0.85, 0.7)),
    Idea("and first action predicted from the state", _RATE_DISTORTION, predict=predicted_start),
    Idea("and joints turned to principal directions", _RATE_DISTORTION, basis=principal_joints),
    Idea("and sines (DST-VII) instead of cosines", _RATE_DISTORTION, scales=(20, 28, 40), basis=dst7),
]


def folds(joints: RecordedJoints, chunk_size: int, stride: int) -> Iterator[Data]:
    """Leave out each episode once."""
    for episode in joints.episodes:
        others = joints.of_episodes([other for other in joints.episodes if other != episode])
        yield Data(others.chunks(chunk_size), joints.of_episodes([episode]).chunks(chunk_size, stride), joints)


def at_error(figures: NDArray, error: float) -> tuple[float, float, float]:
    """Mean tokens, their spread, and the largest error where the mean error is `error`, between the scales.

    Args:
        figures: Tokens, mean error and largest error, (scales, folds, 3), from coarse to fine.
        error: Mean error over the folds, in robot units.
    """
    means = figures.mean(axis=1)
    order = np.argsort(means[:, 1])
    grid = np.log(means[order, 1])
    if not grid[0] <= np.log(error) <= grid[-1]:
        return np.nan, np.nan, np.nan
    values = (means[:, 0], figures[..., 0].std(axis=1), figures[..., 2].max(axis=1))
    tokens, spread, largest = (float(np.interp(np.log(error), grid, value[order])) for value in values)
    return tokens, spread, largest


def print_splines(data: Sequence[Data]) -> None:
    """BEAST's clamped cubic B-splines by ridge regression, control points in 256 bins: a fixed number of tokens."""
    for points in (4, 5, 6, 8, 12):
        errors = []
        for fold in data:
            codec = ChunkCodec.fit(*fold.fit, fold.joints.joint_names, "bins", relative=True, equal_ranges=True)
            codec = codec.with_span(*fold.joints.span)
            chunks = codec.scaling.normalize(*fold.test)
            knots = np.concatenate([np.zeros(3), np.linspace(0, 1, points - 2), np.ones(3)])
            design = BSpline.design_matrix(np.linspace(0, 1, chunks.shape[1]), knots, 3).toarray()
            fitted = np.linalg.solve(design.T @ design + 1e-3 * np.eye(points), design.T @ chunks)
            decoded = design @ (np.round(np.clip(fitted, -2, 2) * 64) / 64)
            errors.append(np.abs(codec.scaling.unnormalize(decoded, fold.test[1]) - fold.test[0]))
        tokens = points * errors[0].shape[2]
        mean, largest = np.mean([error.mean() for error in errors]), max(error.max() for error in errors)
        print(f"B-splines, {points} control points: {tokens} tokens, mean error {mean:.3f}, largest {largest:.2f}")


def print_predictability(data: Data, idea: Idea, scale: float) -> None:
    """Share of ids that a chunk has in common with the next frame's, and bits of a chunk under a simple model.

    The model knows how many coefficients are written, and how often each id came there in the chunks fitted to.
    """
    codec = ChunkCodec.fit(*data.fit, data.joints.joint_names, **idea.options, scale=scale)
    tokenizer = codec.tokenizer
    assert isinstance(tokenizer, FastTokenizer)
    fitted, tested = codec.encode(*data.fit), codec.encode(*data.test)
    shared = [difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() for a, b in pairwise(tested)]
    places, anywhere = Counter[tuple[int, int]](), Counter[int]()
    for place, token in placed(fitted, tokenizer):
        places[place, token] += 1
        anywhere[token] += 1
    at_place, total = Counter[int](), sum(anywhere.values())
    for (place, _), count in places.items():
        at_place[place] += count
    bits = 0.0
    for place, token in placed(tested, tokenizer):
        general = (anywhere[token] + 0.5) / (total + 0.5 * tokenizer.vocab_size)
        bits -= np.log2((places[place, token] + 8 * general) / (at_place[place] + 8))
    bits /= len(tested)
    print(f"{idea.name}, scale {scale}: {np.mean(shared):.0%} ids shared with the next frame, {bits:.0f} bits a chunk")


def placed(ids: Sequence[Sequence[int]], tokenizer: FastTokenizer) -> Iterator[tuple[int, int]]:
    """Coefficients written before each token, and the token."""
    for sequence in ids:
        counts = tokenizer.coefficient_counts[list(sequence)]
        yield from zip((np.cumsum(counts) - counts).tolist(), sequence, strict=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="parquet file, or folder or repo id of a LeRobot data set")
    parser.add_argument("--chunk-size", type=int, default=50)
    parser.add_argument("--stride", type=int, default=4, help="frames from one test chunk to the next")
    parser.add_argument("--only", choices=("winners", "others"))
    args = parser.parse_args()
    data = list(folds(read_joints(args.data), args.chunk_size, args.stride))
    error = None
    ideas = [*WINNERS[: 1 if args.only == "others" else None], *([] if args.only == "winners" else OTHERS)]
    print(f"{'':48} tokens        largest error, at the mean error of plain FAST, scale {_PLAIN_SCALE}")
    for idea in ideas:
        figures = np.array([[run(idea, fold, scale) for fold in data] for scale in idea.scales])
        if error is None:
            error = float(figures[idea.scales.index(_PLAIN_SCALE), :, 1].mean())
        tokens, spread, largest = at_error(figures, error)
        print(f"{idea.name:48} {tokens:5.1f} ± {spread:.1f}   {largest:.2f}   (mean error {error:.3f})", flush=True)
    print_splines(data)
    joints = data[0].joints
    every_frame = replace(data[0], test=joints.of_episodes(joints.episodes[:1]).chunks(args.chunk_size, 1))
    for idea, scale in ((WINNERS[0], 10), (WINNERS[-2], 14), (WINNERS[-1], 20)):
        print_predictability(every_frame, idea, scale)


if __name__ == "__main__":
    main()
