"""Sequences of action tokens drawn through the mask, from random and from hostile logits: how many are no chunk?

    python benchmarks/masked_decoding.py                    # 10^6 sequences in all, some minutes
    python benchmarks/masked_decoding.py --sequences 4000

Every sequence is decoded by the tokenizer and its scaling, in robot units. Beside it the same draws without the mask
(a sequence then ends when it has all units of a chunk, or more), and encoded motion with one token replaced at random.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fast_policy import make_config
from masked_draws import LOGITS, Faults, count_faults, draw_sequences, like_fast_plus, replace_one_token
from reaching_motion import reaching_chunks

from lerobot_vla_plugin.action_tokenizers import MalformedTokensError
from lerobot_vla_plugin.action_tokenizers.chunk_codec import ChunkCodec
from lerobot_vla_plugin.modeling_vla import VLAFastPolicy

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
# Sequences that share their logits.
GROUP = 50_000


def make_codecs(num_chunks: int, chunk_size: int) -> dict[str, ChunkCodec]:
    """A codec of each kind, fitted to the same motion."""
    actions, states = reaching_chunks(num_chunks, chunk_size, len(JOINTS))

    def fit(kind: str, **options) -> ChunkCodec:
        return ChunkCodec.fit(actions, states, JOINTS, kind, **options)

    fast = fit("fast")
    return {
        "FAST": fast,
        "FAST, relative": fit("fast", relative=True),
        "like FAST+": like_fast_plus(fast, fast.scaling.normalize(actions, states)),
        "bins": fit("bins"),
        "VQ": fit("vq", steps=20),  # how well it fits does not matter here
    }


def draw_and_decode(codec: ChunkCodec, logits: str, num: int) -> tuple[Faults, NDArray[np.int64]]:
    """Faults of sequences drawn through the mask, and their lengths, (num,)."""
    generator = np.random.default_rng(0)
    faults, lengths = Faults(), []
    for start in range(0, num, GROUP):
        draws = draw_sequences(codec.grammar, LOGITS[logits], min(GROUP, num - start), generator)
        faults = faults.plus(count_faults(codec, draws.sequences(), generator))
        lengths.append(draws.lengths)
    return faults, np.concatenate(lengths)


def share_malformed(codec: ChunkCodec, sequences: list[list[int]]) -> float:
    """Share of sequences that the tokenizer refuses, decoded one by one."""
    refused = 0
    for ids in sequences:
        try:
            codec.tokenizer.decode([ids], codec.chunk_size, codec.action_dim)
        except MalformedTokensError:
            refused += 1
    return refused / len(sequences)


def compare_draws(name: str, codec: ChunkCodec, num: int) -> None:
    """Print a row for every kind of logits, and their sum."""
    total = Faults()
    for logits in tqdm(LOGITS, desc=name, leave=False):
        faults, lengths = draw_and_decode(codec, logits, num // len(LOGITS))
        total = total.plus(faults)
        unmasked = draw_sequences(codec.grammar, LOGITS[logits], 2_000, np.random.default_rng(0), masked=False)
        share = share_malformed(codec, unmasked.sequences())
        tokens = f"{lengths.mean():7.1f} {lengths.max():7d}"
        tqdm.write(f"{name:15s}{logits:28s} {len(lengths):9,d} {tokens} | {columns(faults)} | {share:12.1%}")
    tqdm.write(f"{name:15s}{'all':28s} {num // len(LOGITS) * len(LOGITS):9,d} {'':15s} | {columns(total)} |")


def columns(faults: Faults) -> str:
    """Three columns of the table."""
    return f"{faults.malformed:9d} {faults.outside_alphabet:8d} {faults.outside_span:6d}"


def compare_replaced(name: str, codec: ChunkCodec, num: int = 5_000) -> None:
    """Print what one token replaced at random does to encoded motion that the codec was not fitted to."""
    actions, states = reaching_chunks(num, codec.chunk_size, codec.action_dim, seed=1)
    replaced = replace_one_token(codec.encode(actions, states), codec.vocab_size, np.random.default_rng(0))
    share = share_malformed(codec, list(replaced))
    print(f"{name:15s}one token of {num:,d} encoded chunks replaced at random: {share:.1%} malformed")


def make_untrained_policy(codec: ChunkCodec, folder: Path, temperature: float) -> VLAFastPolicy:
    """The built-in policy on random weights."""
    codec.save(folder)
    options = {"chunk_size": codec.chunk_size, "temperature": temperature, "action_tokenizer_path": str(folder)}
    return VLAFastPolicy(make_config(("front",), codec.action_dim, (96, 96), **options))


def observation(batch_size: int, joints: int) -> dict[str, torch.Tensor]:
    """Noise for a picture, any words, any posture."""
    return {
        "observation.images.front": torch.rand(batch_size, 3, 96, 96),
        "observation.state": torch.empty(batch_size, joints).uniform_(-180, 180),
        "observation.language.tokens": torch.randint(3, 200, (batch_size, 12)),
        "observation.language.attention_mask": torch.ones(batch_size, 12, dtype=torch.bool),
    }


def run_untrained_policy(name: str, codec: ChunkCodec, num: int, temperature: float, batch_size: int = 50) -> None:
    """Print how many chunks of an untrained policy leave the span of the data; a malformed one would end this run."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        policy = make_untrained_policy(codec, Path(folder), temperature)
    # The policy answers in float32.
    low, high = np.float32(codec.scaling.span_low), np.float32(codec.scaling.span_high)
    outside = 0
    for _ in tqdm(range(num // batch_size), desc=name, leave=False):
        actions = policy.predict_action_chunk(observation(batch_size, codec.action_dim)).numpy()
        outside += int((~((actions >= low) & (actions <= high)).all(axis=(1, 2))).sum())
    decoded = num // batch_size * batch_size
    print(
        f"{name:15s}untrained policy, temperature {temperature}: {decoded} chunks decoded, {outside} outside the span"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=200_000, help="drawn for each of five tokenizers")
    parser.add_argument("--chunks", type=int, default=1_000, help="decoded by untrained policies")
    parser.add_argument("--fitted-on", type=int, default=3_000, help="chunks of made-up motion")
    parser.add_argument("--chunk-size", type=int, default=50)
    args = parser.parse_args()
    start = time.perf_counter()
    codecs = make_codecs(args.fitted_on, args.chunk_size)
    for name, codec in codecs.items():
        states, vocab_size = codec.grammar.counts.shape
        print(
            f"{name}: {vocab_size} ids, {states} states, {codec.grammar.total} units, longest {codec.grammar.longest}"
        )
    faults = f"{'malformed':>9s} {'alphabet':>8s} {'span':>6s} | {'without mask':>12s}"
    print(f"{'':43s} {'sequences':>9s} {'tokens':>7s} {'longest':>7s} | {faults}")
    for name, codec in codecs.items():
        compare_draws(name, codec, args.sequences)
    for name, codec in codecs.items():
        compare_replaced(name, codec)
    for name, codec in codecs.items():
        for temperature in (0.0, 1.0):
            run_untrained_policy(name, codec, args.chunks // 2 // len(codecs), temperature)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
