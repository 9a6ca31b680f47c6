"""What the choice of tokens is worth to a trained `vla_fast`.

The same small policy is trained from the same weights on the same batches with each tokenizer; the last episode is held
out from training and fitting. Printed: tokens of a chunk and error of the tokenizer alone, then cross-entropy and error
of the policy on that episode.

    lerobot-vla twin --width=96 --height=96       # lerobot-record as it prints; any recording of one task will do
    OMP_NUM_THREADS=1 python benchmarks/token_training.py ~/.cache/huggingface/lerobot/local/so101_twin

Found on 12 episodes of 12 s of that twin, after 1,000 steps, seeds 0 and 1, error in degrees; holding still 6.0:

    as published     9.7 tokens, 0.32 of their own; policy 6.4 and 6.5
    default          8.0 tokens, 0.24 of their own; policy 6.1 and 6.7
    few, coarse      8.3 tokens, 0.73 of their own; policy 3.7 and 5.4

A vocabulary of a thousand ids is learnt by heart from so little motion; the seeds differ more than the first two rows.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from recorded_training import Recording, train_and_examine

from lerobot_vla_plugin.action_tokenizers.chunk_codec import ChunkCodec
from lerobot_vla_plugin.modeling_vla import VLAFastPolicy
from lerobot_vla_plugin.tokenizer_fit import FIT_DEFAULTS
from lerobot_vla_plugin.tokenizer_joints import RecordedJoints, read_joints

# Name -> arguments of `ChunkCodec.fit`.
CONTESTANTS: dict[str, dict[str, Any]] = {
    "as published": {"scale": 10.0, "vocab_size": 1024},
    "default": {**FIT_DEFAULTS["fast"]},
    "few, coarse": {"relative": True, "equal_ranges": True, "scale": 4.0, "vocab_size": 128},
}


def fit(joints: RecordedJoints, held_out: int, chunk_size: int, options: dict[str, Any], folder: Path) -> str:
    """Fit on the other episodes and save; gives what the tokenizer alone costs on the held-out one."""
    actions, states = joints.of_episodes([e for e in joints.episodes if e != held_out]).chunks(chunk_size)
    ChunkCodec.fit(actions, states, joints.joint_names, "fast", **options).with_span(*joints.span).save(folder)
    codec = ChunkCodec.load(folder)
    actions, states = joints.of_episodes([held_out]).chunks(chunk_size)
    ids = codec.encode(actions, states)
    error = np.abs(codec.decode(ids, states) - actions).mean()
    return f"{np.mean([len(sequence) for sequence in ids]):.1f} tokens, error {error:.3f} of their own"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--chunk-size", type=int, default=10)
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate")
    parser.add_argument("--only", choices=CONTESTANTS, nargs="+", default=list(CONTESTANTS))
    args = parser.parse_args()
    joints, recording = read_joints(args.dataset), Recording(args.dataset, args.chunk_size)
    for name in args.only:
        with tempfile.TemporaryDirectory() as scratch:
            alone = fit(
                joints, max(joints.episodes), args.chunk_size, CONTESTANTS[name], folder := Path(scratch) / "tokenizer"
            )
            print(f"{name}: {alone}", flush=True)
            for seed in range(args.seeds):
                options = {"action_tokenizer_path": str(folder)}
                found = train_and_examine(VLAFastPolicy, recording, seed, args.steps, args.rate, **options)
                print(f"    seed {seed}: {found}", flush=True)


if __name__ == "__main__":
    main()
