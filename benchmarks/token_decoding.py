"""Time of `vla_fast` beside LeRobot's `pi0_fast` and beside `vla_flow`: same geometry, one process, taking turns.

    python benchmarks/token_decoding.py                          # a tiny geometry, a minute or two
    python benchmarks/token_decoding.py --geometry half          # half of SmolVLM2's width; several minutes
    python benchmarks/token_decoding.py --batch-size 8

All have the same vision tower, language model and prefix length, and write the same number of tokens; pi0_fast writes
four more around them ("Action: " and "|"). Its head has PaliGemma's 257,152 rows; a second column gives it only the
rows that it needs. Weights are random: speed does not depend on them. Medians over the repeats; ratios are what to
compare across machines. On one thread it is processor time that counts, so a busy computer does little harm.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from lerobot.policies.pi0_fast.modeling_pi0_fast import PI0FastPolicy
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from token_contestants import (
    FLOW,
    GEOMETRIES,
    OURS,
    PI0_FAST_FRAME,
    THEIRS,
    THEIRS_SMALL,
    Contestants,
    make_batches,
    make_contestants,
)

from lerobot_vla_plugin.action_tokenizers import TokenGrammar
from lerobot_vla_plugin.models.token_decoding import DecodingGrammar

# Without a cache every token costs a whole pass; a few say how much.
_UNCACHED_TOKENS = 9


class Table:
    """Rows of median times of jobs that take turns."""

    columns = (THEIRS, THEIRS_SMALL, OURS, FLOW)

    def __init__(self, repeats: int):
        self.repeats = repeats
        self.clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        print(f"{'':32s}" + "".join(f"{name:>15s}" for name in self.columns) + f"{'faster (small)':>20s}")

    def run(self, name: str, jobs: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Add a row; returns the medians in [ms]."""
        medians = self.measure(name, jobs)
        self.add(name + " [ms]", medians)
        return medians

    def measure(self, name: str, jobs: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Medians in [ms]."""
        for job in jobs.values():
            job()  # warm-up
        times: dict[str, list[float]] = {who: [] for who in jobs}
        for _ in tqdm(range(self.repeats), desc=name, leave=False):
            for who, job in jobs.items():
                start = self.clock()
                job()
                times[who].append((self.clock() - start) * 1e3)
        return {who: statistics.median(values) for who, values in times.items()}

    def add(self, name: str, values: dict[str, float], more_is_better: bool = False) -> None:
        """Add a row of figures, and how much better ours is than both of theirs."""
        cells = "".join(f"{values[c]:15.2f}" if c in values else f"{'-':>15s}" for c in self.columns)
        ratios = [values[c] / values[OURS] for c in (THEIRS, THEIRS_SMALL)]
        faster, than_small = (1 / ratio if more_is_better else ratio for ratio in ratios)
        print(f"{name:32s}{cells}{faster:10.2f}x ({than_small:.2f}x)", flush=True)


def silently(job: Callable[[], object]) -> Callable[[], object]:
    """A job without its warnings: pi0_fast logs every sequence that it cannot decode."""

    def run() -> object:
        logging.disable(logging.WARNING)
        try:
            return job()
        finally:
            logging.disable(logging.NOTSET)

    return run


def chunk_job(policy: PI0FastPolicy, batch: dict, tokens: int, use_kv_cache: bool = True) -> Callable[[], object]:
    """pi0_fast's whole way from an observation to a chunk, in so many tokens."""

    def run() -> object:
        policy.config.max_decoding_steps, policy.config.use_kv_cache = tokens, use_kv_cache
        return policy.predict_action_chunk(batch)

    return silently(run)


def grammar_of(num_tokens: int, vocab_size: int) -> DecodingGrammar:
    """Chunks of so many tokens, whatever they are: untrained weights would not stop where trained ones do."""
    once = np.ones((1, vocab_size), dtype=np.int32)
    grammar = TokenGrammar(once, np.zeros_like(once), num_tokens)
    return DecodingGrammar(grammar.allowed, grammar.counts, grammar.next_states)


def our_chunk_job(who: Contestants, num_tokens: int) -> Callable[[], object]:
    """vla_fast's whole way from an observation to a chunk; what is turned into actions is encoded motion."""
    policy, batch = who.vla_fast, who.batches[OURS]
    states = batch["observation.state"]
    tokens = policy.action_tokens.encode(batch["action"], states, torch.ones(batch["action"].shape[:2]).bool())
    grammar = grammar_of(num_tokens, who.codec.vocab_size)

    def run() -> Tensor:
        policy.model.generate(policy._observe(batch), grammar)
        return policy.action_tokens.decode(tokens.ids, tokens.masks.sum(dim=1), states)

    return run


@torch.no_grad()
def compare_inference(table: Table, who: Contestants, batch_size: int, num_tokens: int) -> None:
    """Prefix, token, chunk."""
    ours, flow = who.vla_fast.eval(), who.vla_flow.eval()

    def theirs(tokens: int, **options) -> dict[str, Callable[[], object]]:
        return {name: chunk_job(p, who.batches[name], tokens, **options) for name, p in who.pi0_fast.items()}

    prefix = table.run(
        "vision + prefix",
        {
            **theirs(1),
            OURS: lambda: ours.model.prefill(ours._observe(who.batches[OURS])),
            FLOW: lambda: flow.model.prefill(flow._observe(who.batches[FLOW])),
        },
    )
    our_chunk = our_chunk_job(who, num_tokens)
    written = num_tokens + PI0_FAST_FRAME
    flow_chunk = {FLOW: lambda: flow.predict_action_chunk(who.batches[FLOW])}
    chunk = table.run(f"chunk of {num_tokens} tokens", theirs(written) | {OURS: our_chunk} | flow_chunk)
    # The first token of pi0_fast comes with its prefix.
    steps = dict.fromkeys(who.pi0_fast, written - 1) | {OURS: num_tokens, FLOW: flow.config.num_steps}
    token = {name: (chunk[name] - prefix[name]) / steps[name] for name in chunk}
    table.add("one token (flow: Euler step) [ms]", token)
    table.add("tokens a second", {n: batch_size * 1e3 / token[n] for n in token if n != FLOW}, more_is_better=True)
    uncached = table.measure("without cache", theirs(_UNCACHED_TOKENS, use_kv_cache=False))
    without = {name: (uncached[name] - prefix[name]) / (_UNCACHED_TOKENS - 1) for name in uncached}
    table.add("one token, pi0_fast uncached [ms]", without | {OURS: token[OURS]})


def compare_training(table: Table, who: Contestants) -> None:
    """Forward and backward pass; vla_fast encodes the actions in it, pi0_fast's come encoded.

    The few chunks that vla_fast decodes for the log at every 50th step are left out.
    """
    policies = {**who.pi0_fast, OURS: who.vla_fast, FLOW: who.vla_flow}

    def step(name: str) -> None:
        policies[name].train()
        policies[name].forward(dict(who.batches[name]))[0].backward()
        policies[name].zero_grad()

    table.run("training step", {name: lambda name=name: step(name) for name in policies})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", choices=list(GEOMETRIES), default="tiny")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=30, help="of a chunk; 30 is FAST on an SO-101's teleoperation")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        who = make_contestants(args.geometry, Path(folder))
        make_batches(who, args.batch_size)
    text = GEOMETRIES[args.geometry]["text"]
    print(
        f"{args.geometry} geometry ({text['num_hidden_layers']} layers {text['hidden_size']} wide), batch "
        f"{args.batch_size}, {args.threads} thread(s), torch {torch.__version__}, fp32"
    )
    table = Table(args.repeats)
    compare_inference(table, who, args.batch_size, args.tokens)
    compare_training(table, who)


if __name__ == "__main__":
    main()
