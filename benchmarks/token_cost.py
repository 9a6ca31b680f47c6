"""What a token of `vla_fast` costs as chunk, joints and batch grow, and how much of it the mask is.

    python benchmarks/token_cost.py

The tiny backbone on random weights, one thread, processor time. FAST and bins are fitted to the same made-up motion;
how many tokens a chunk takes is counted on other motion, what a token costs is measured decoding that many. In the end:
what it costs that attention runs over the free room of the cache, too.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from reaching_motion import reaching_chunks

from lerobot_vla_plugin.action_tokenizers.chunk_codec import ChunkCodec
from lerobot_vla_plugin.models.backbone import Observation, VLMBackbone
from lerobot_vla_plugin.models.built_in import tiny_config
from lerobot_vla_plugin.models.kv_cache import KVCache
from lerobot_vla_plugin.models.token_decoding import ActionTokenModel, DecodingGrammar, TokenGeometry

# (kind, chunk_size, joints, batch size)
SIZES = [
    *(("fast", chunk_size, 6, 1) for chunk_size in (10, 25, 50, 100)),
    *(("fast", 50, joints, 1) for joints in (10, 14)),
    ("fast", 100, 14, 1),
    ("fast", 50, 6, 8),
    *(("bins", chunk_size, 6, 1) for chunk_size in (10, 50)),
    ("bins", 50, 14, 1),
]
# Places in the cache behind the prefix.
ROOMS = (32, 300, 600)
NUM_LAYERS, IMAGE_TOKENS, WORDS = 2, 9, 20


@dataclass
class Costs:
    """Median times of the parts of decoding one token, in [us], and of the prefix."""

    prefix: float
    decode: float
    choose: float
    argmax: float

    @property
    def token(self) -> float:
        """A whole token."""
        return self.decode + self.choose

    @property
    def masking_share(self) -> float:
        """What choosing among allowed tokens costs more than a plain argmax."""
        return (self.choose - self.argmax) / self.token


def make_model(codec: ChunkCodec) -> tuple[ActionTokenModel, DecodingGrammar]:
    """The tiny model that speaks a codec's tokens."""
    grammar = codec.grammar
    geometry = TokenGeometry(codec.action_dim, codec.vocab_size, grammar.longest, grammar.total)
    model = ActionTokenModel(VLMBackbone(tiny_config(), NUM_LAYERS), geometry).eval()
    return model, DecodingGrammar(grammar.allowed, grammar.counts, grammar.next_states)


def make_observation(batch_size: int, joints: int, width: int) -> Observation:
    """Noise."""
    return Observation(
        image_tokens=[torch.randn(batch_size, IMAGE_TOKENS, width)],
        image_masks=[torch.ones(batch_size, dtype=torch.bool)],
        language=torch.randint(3, 200, (batch_size, WORDS)),
        language_masks=torch.ones(batch_size, WORDS, dtype=torch.bool),
        state=torch.randn(batch_size, joints),
    )


@torch.no_grad()
def measure(model: ActionTokenModel, grammar: DecodingGrammar, observation: Observation, num_tokens: int) -> Costs:
    """Decode tokens as `generate` does, with the clock on each part; a plain argmax beside."""
    seconds: dict[str, list[float]] = {"prefix": [], "decode": [], "choose": [], "argmax": []}

    def timed(name: str, job: Callable[[], Tensor]) -> Tensor:
        start = time.process_time()
        result = job()
        seconds[name].append(time.process_time() - start)
        return result

    for _ in range(max(3, 300 // num_tokens)):
        timed("prefix", lambda: model.prefill(observation).pad_masks)
        prefix = model.prefill(observation)
        cache, rows = KVCache.after(prefix, model.geometry.max_tokens), grammar.start(len(prefix.pad_masks))
        token, _ = grammar.choose(torch.randn(len(rows), model.end_marker + 1), rows)
        for _ in range(num_tokens):
            logits = timed("decode", lambda t=token, r=rows, c=cache: model.decode_one_token(t, grammar.missing(r), c))
            timed("argmax", lambda logits=logits: logits.argmax(dim=1))
            token = timed("choose", lambda logits=logits, rows=rows: grammar.choose(logits, rows)[0])
    return Costs(**{name: statistics.median(values) * 1e6 for name, values in seconds.items()})


def print_row(kind: str, chunk_size: int, joints: int, batch_size: int) -> None:
    """Fit, measure and print one size."""
    names = [f"joint_{j}" for j in range(joints)]
    codec = ChunkCodec.fit(*reaching_chunks(1_500, chunk_size, joints), names, kind)
    lengths = np.array([len(ids) for ids in codec.encode(*reaching_chunks(500, chunk_size, joints, seed=1))])
    model, grammar = make_model(codec)
    observation = make_observation(batch_size, joints, model.backbone.width)
    costs = measure(model, grammar, observation, round(lengths.mean()))
    chunk_ms = (costs.prefix + lengths.mean() * costs.token) / 1e3
    print(
        f"{kind:5s}{chunk_size:6d}{joints:7d}{batch_size:6d} |{chunk_size * joints:7d}{lengths.mean():8.1f}"
        f"{np.quantile(lengths, 0.99):7.0f}{codec.grammar.longest:8d} |{costs.token:9.0f}{chunk_ms:9.1f}"
        f"{batch_size * 1e6 / costs.token:10.0f} |{costs.choose:8.0f}{costs.argmax:8.0f}{costs.masking_share:8.1%}",
        flush=True,
    )


@torch.no_grad()
def print_rooms(batch_size: int, rounds: int = 40) -> None:
    """Decode a few tokens with little and with much free room in the cache, in turns, and print the ratios."""
    codec = ChunkCodec.fit(*reaching_chunks(1_500, 50, 6), [f"joint_{j}" for j in range(6)], "fast")
    model, grammar = make_model(codec)
    prefix = model.prefill(make_observation(batch_size, 6, model.backbone.width))
    token, missing = torch.zeros(batch_size, dtype=torch.long), grammar.missing(grammar.start(batch_size))
    seconds: dict[int, list[float]] = {room: [] for room in ROOMS}
    for _ in range(rounds):
        for room in ROOMS:
            cache = KVCache.after(prefix, room)
            start = time.process_time()
            for _ in range(10):
                model.decode_one_token(token, missing, cache)
            seconds[room].append(time.process_time() - start)
    medians = [statistics.median(seconds[room]) for room in ROOMS]
    ratios = ", ".join(f"{room}: {median / medians[0]:.2f}x" for room, median in zip(ROOMS, medians, strict=True))
    print(f"a token with so many free places, batch {batch_size}: {ratios}", flush=True)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes, tokens = f"{'kind':5s}{'chunk':>6s}{'joints':>7s}{'batch':>6s}", f"{'values':>7s}{'tokens':>8s}{'p99':>7s}"
    times = f"{'us/token':>9s}{'ms/chunk':>9s}{'tokens/s':>10s}"
    print(f"{sizes} |{tokens}{'longest':>8s} |{times} |{'choose':>8s}{'argmax':>8s}{'masking':>8s}")
    for size in tqdm(SIZES, leave=False):
        print_row(*size)
    for batch_size in (1, 8):
        print_rooms(batch_size)


if __name__ == "__main__":
    main()
