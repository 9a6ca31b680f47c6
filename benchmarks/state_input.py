"""The state as one token, or as text in the prompt: which of the two lets `vla_fast` predict better at equal steps?

`vla_fast` gives the backbone the state as one linear token. openpi writes it into the prompt instead, as the numbers of
256 bins ("State: 127 130 97 ...;"). Both are trained here on the same recording, from the same weights, with the same
batches; the last episode is held out. Printed for each, and for each seed: cross-entropy and error on that episode, and
the processor time of training.

    lerobot-vla twin --width=96 --height=96       # lerobot-record as it prints; any recording of one task will do
    lerobot-vla tokenizer fit DATASET --chunk-size=10 --relative --vocab-size=256 --output CODEC
    OMP_NUM_THREADS=1 python benchmarks/state_input.py DATASET --action-tokenizer-path CODEC --steps 300

Found on 12 episodes of the twin, seeds 0 and 1: the token 3.40 and 3.28, 6.6 and 6.9 degrees, 57 and 51 s; text 3.53
and 3.51, 7.4 and 7.3 degrees, 59 and 63 s. So `vla_fast` has the token. A pretrained VLM, which has read numbers
before, may judge otherwise; that was not measured.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from recorded_training import Recording, train_and_examine
from torch import Tensor

from lerobot_vla_plugin.modeling_vla import VLAFastPolicy
from lerobot_vla_plugin.models.backbone import Observation
from lerobot_vla_plugin.models.built_in import byte_tokenizer

_BINS = 256


class TextStatePolicy(VLAFastPolicy):
    """`vla_fast`, but the state is text behind the instruction, and the state token says nothing."""

    def _observe(self, batch: dict[str, Tensor]) -> Observation:
        observation = super()._observe(batch)
        bins = ((observation.state + 1) / 2 * _BINS).long().clamp(0, _BINS - 1)
        texts = [f"State: {' '.join(map(str, row))};\n" for row in bins.tolist()]
        written: Any = byte_tokenizer()(texts, padding=True, return_tensors="pt")
        language, masks = observation.language, observation.language_masks
        return replace(
            observation,
            language=torch.cat([language, written["input_ids"]], dim=1),
            language_masks=torch.cat([masks, written["attention_mask"].bool()], dim=1),
            state=torch.zeros_like(observation.state),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--chunk-size", type=int, default=10)
    parser.add_argument("--action-tokenizer-path", help="as `lerobot-vla tokenizer fit` writes it; else FAST is fitted")
    args = parser.parse_args()
    recording = Recording(args.dataset, args.chunk_size)
    for seed in range(args.seeds):
        for name, policy_class in (("token", VLAFastPolicy), ("text", TextStatePolicy)):
            options = {"action_tokenizer_path": args.action_tokenizer_path}
            found = train_and_examine(policy_class, recording, seed, args.steps, 1e-3, **options)
            print(f"{name:6} seed {seed}: {found}", flush=True)


if __name__ == "__main__":
    main()
