"""FAST action tokens: this package beside the published per-sample processor, in one process, taking turns.

    python benchmarks/fast_tokenizer.py
    RAYON_NUM_THREADS=1 python benchmarks/fast_tokenizer.py       # one thread

Both read the same vocabulary, so ids and actions are compared before anything is timed. Prints medians with the range
of the rounds' ratios, and the best times, which a busy computer disturbs less. `--data joints.parquet` takes the chunks
from a recording (a LeRobot data set's parquet) instead of smooth random motion. Vocabularies are fitted to all chunks.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fast_reference import ReferenceFast, smooth_chunks

from lerobot_vla_plugin.action_tokenizers import FastTokenizer


def recorded_chunks(parquet: Path, chunk_size: int) -> NDArray:
    """All windows inside the episodes, normalised by q01 and q99."""
    frames = pd.read_parquet(parquet, columns=["action", "episode_index"])
    windows = []
    for _, episode in frames.groupby("episode_index"):
        actions = np.stack(episode["action"].to_list()).astype(np.float64)
        windows.append(np.lib.stride_tricks.sliding_window_view(actions, chunk_size, axis=0).transpose(0, 2, 1))
    chunks = np.concatenate(windows)
    low, high = np.quantile(chunks, [0.01, 0.99], axis=(0, 1))
    return (chunks - low) / (high - low) * 2 - 1


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def contest(name: str, theirs: Callable[[], object], ours: Callable[[], object], rounds: int) -> None:
    """Time both in turns and print the ratio."""
    timed(theirs)
    timed(ours)
    times = np.array([(timed(theirs), timed(ours)) for _ in range(rounds)])
    low, high = np.quantile(times[:, 0] / times[:, 1], [0.1, 0.9])
    (their_ms, our_ms), (their_best_ms, our_best_ms) = np.median(times, axis=0) * 1e3, times.min(axis=0) * 1e3
    print(
        f"{name:24} {their_ms:9.2f} {our_ms:9.2f}  {their_ms / our_ms:6.2f}x ({low:5.2f}..{high:5.2f})"
        f" {their_best_ms:9.2f} {our_best_ms:9.2f}  {their_best_ms / our_best_ms:6.2f}x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="parquet with action and episode_index")
    parser.add_argument("--chunks", type=int, default=256)
    parser.add_argument("--chunk-size", type=int, default=50)
    parser.add_argument("--fit", type=int, default=10_000, help="chunks to fit to")
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    if arguments.data:
        motion = recorded_chunks(arguments.data, arguments.chunk_size)
    else:
        motion = smooth_chunks(arguments.fit, arguments.chunk_size, 6)
    spread = np.linspace(0, len(motion) - 1, arguments.chunks).astype(int)
    chunks, shape = motion[spread], motion.shape[1:]
    print(f"{len(chunks)} chunks of {shape[0]} x {shape[1]}, vocabularies of 1,024 fitted to {len(motion)} chunks")
    columns = f"{'published':>9} {'ours':>9}  {'ratio':>7}"
    print(f"{'medians, then best [ms]':24} {columns} {'10..90 %':>14} {columns}")
    contest("fit", lambda: ReferenceFast.fit(motion), lambda: FastTokenizer.fit(motion), 3)
    published = ReferenceFast.fit(motion)
    with tempfile.TemporaryDirectory() as folder:
        same = FastTokenizer.from_published(published.save(Path(folder)))
    ids = published.encode(chunks)
    assert same.encode(chunks) == ids
    assert np.array_equal(same.decode(ids, *shape), published.decode(ids, *shape))
    contest("encode", lambda: published.encode(chunks), lambda: same.encode(chunks), arguments.rounds)
    contest("decode", lambda: published.decode(ids, *shape), lambda: same.decode(ids, *shape), arguments.rounds)
    own = FastTokenizer.fit(motion)
    own_ids = own.encode(chunks)
    contest("encode, own vocabulary", lambda: published.encode(chunks), lambda: own.encode(chunks), arguments.rounds)
    contest(
        "decode, own vocabulary",
        lambda: published.decode(ids, *shape),
        lambda: own.decode(own_ids, *shape),
        arguments.rounds,
    )
    for name, sequences in (("published", ids), ("own vocabulary", own_ids)):
        print(f"{name}: {np.mean([len(sequence) for sequence in sequences]):.1f} tokens a chunk")


if __name__ == "__main__":
    main()
