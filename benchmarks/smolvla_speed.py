"""Time and memory of `vla_flow` beside LeRobot's `smolvla`: same weights, same inputs, one process, taking turns.

    python benchmarks/smolvla_speed.py                      # a tiny geometry, seconds
    python benchmarks/smolvla_speed.py --geometry real      # SmolVLM2-500M, 16 layers; minutes, 12 GB of memory
    python benchmarks/smolvla_speed.py --geometry real --device cuda --compile

Weights are random: speed does not depend on them. Medians over the repeats; ratios are what to compare across machines.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lerobot.policies.common.vla_utils import make_att_2d_masks
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from smolvla_reference import REAL_TEXT, REAL_VISION, make_batch, make_smolvla, write_vlm_folder

from lerobot_vla_plugin.modeling_vla import VLAFlowPolicy
from lerobot_vla_plugin.vision_cache import VisionTokenCache

GEOMETRIES = {
    "tiny": {
        "vlm": {},
        "policy": {"num_vlm_layers": 4, "resize_imgs_with_padding": (48, 48)},
        "image": (48, 48),
        "cross_layer": 1,
    },
    "real": {
        "vlm": {"text": REAL_TEXT, "vision": REAL_VISION, "scale_factor": 4},
        "policy": {"num_vlm_layers": 16},
        "image": (480, 640),
        "cross_layer": 1,
    },
}


def make_pair(geometry: str, num_cameras: int, device: str):
    """LeRobot's policy and ours with its weights."""
    spec = GEOMETRIES[geometry]
    cameras = ["front", "wrist", "top"][:num_cameras]
    with tempfile.TemporaryDirectory() as folder:
        vlm = write_vlm_folder(Path(folder) / "vlm", **spec["vlm"])
        theirs = make_smolvla(vlm, cameras, image=spec["image"], chunk_size=50, n_action_steps=10, **spec["policy"])
        theirs.save_pretrained(Path(folder) / "policy")
        ours = VLAFlowPolicy.from_pretrained(Path(folder) / "policy")
    return theirs.to(device), ours.to(device)


class Contest:
    """Times the same job of both sides in turn."""

    def __init__(self, repeats: int, device: str):
        self.repeats, self.device, self.rows = repeats, device, []

    def _seconds(self, job: Callable[[], object]) -> float:
        self._synchronize()
        start = time.perf_counter()
        job()
        self._synchronize()
        return time.perf_counter() - start

    def _synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def run(self, name: str, theirs: Callable[[], object], ours: Callable[[], object]) -> None:
        """Add a row: median seconds of each and their ratio."""
        theirs()  # warm-up
        ours()
        pairs = [
            (self._seconds(theirs), self._seconds(ours)) for _ in tqdm(range(self.repeats), desc=name, leave=False)
        ]
        medians = [statistics.median(side) * 1e3 for side in zip(*pairs, strict=True)]
        self.add(name, *medians, "ms")

    def add(self, name: str, theirs: float, ours: float, unit: str) -> None:
        """Add a row and print it."""
        self.rows.append((name, theirs, ours, unit))
        print(
            f"{name:34s} {theirs:10.1f} {unit:3s} {ours:10.1f} {unit:3s}   {theirs / max(ours, 1e-9):5.2f}x",
            flush=True,
        )


def training_step(policy, batch: dict, noise: torch.Tensor, flow_time: torch.Tensor):
    """Forward pass of a training step; returns the loss."""
    policy.train()
    return policy.forward(dict(batch), noise=noise, time=flow_time)[0]


def saved_megabytes(make_loss: Callable[[], torch.Tensor], policy) -> float:
    """Memory that the graph keeps for the backward pass, without parameters, in [MB]."""
    parameters = {p.untyped_storage().data_ptr() for p in policy.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        loss = make_loss()
    del loss
    return sum(saved.values()) / 1e6


def compare_training(contest: Contest, theirs, ours, batch, noise, flow_time) -> None:
    """Forward, backward and what the graph keeps."""
    args = (batch, noise, flow_time)
    contest.run("training: forward", lambda: training_step(theirs, *args), lambda: training_step(ours, *args))

    def backward_seconds(policy) -> float:
        loss = training_step(policy, *args)
        seconds = contest._seconds(loss.backward)
        policy.zero_grad()
        return seconds

    backward_seconds(theirs)  # warm-up
    backward_seconds(ours)
    pairs = [(backward_seconds(theirs), backward_seconds(ours)) for _ in range(contest.repeats)]
    contest.add("training: backward", *(statistics.median(s) * 1e3 for s in zip(*pairs, strict=True)), "ms")
    kept = [saved_megabytes(lambda p=p: training_step(p, *args), p) for p in (theirs, ours)]
    contest.add("training: kept for backward", *kept, "MB")


def compare_whole_step(contest: Contest, theirs, ours, batch, noise, flow_time) -> None:
    """Forward, backward and optimiser; then the same with each frame's vision tokens read from disk."""

    def make_step(policy):
        optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())

        def step() -> None:
            training_step(policy, batch, noise, flow_time).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    steps = make_step(theirs), make_step(ours)
    contest.run("training: whole step (AdamW)", *steps)
    meta: Any = SimpleNamespace(repo_id="benchmark", total_frames=noise.shape[0], total_episodes=1)
    with tempfile.TemporaryDirectory() as folder:
        ours.vision_cache = VisionTokenCache(Path(folder), meta, ours.model.backbone, ours._image_size, torch.bfloat16)
        contest.run("training: step, vision tokens kept", *steps)
        ours.vision_cache = None


@torch.no_grad()
def compare_inference(contest: Contest, theirs, ours, batch, noise) -> None:
    """Vision tower, prefix, one denoising step, whole chunk."""
    theirs.eval()
    ours.eval()
    model = theirs.model
    images, image_masks = theirs.prepare_images(batch)
    words, word_masks = batch["observation.language.tokens"], batch["observation.language.attention_mask"]
    state = theirs.prepare_state(batch)

    def their_prefix():
        embedded, pads, attends = model.embed_prefix(images, image_masks, words, word_masks, state=state)
        _, cache = model.vlm_with_expert.forward(
            attention_mask=make_att_2d_masks(pads, attends),
            position_ids=pads.cumsum(dim=1) - 1,
            past_key_values=None,
            inputs_embeds=[embedded, None],
            use_cache=True,
        )
        return pads, cache

    observation = ours._observe(batch)
    context = ours.model.action_expert.prepare(ours.model.prefill(observation), noise.shape[1])
    pads, cache = their_prefix()
    flow_time = torch.full((noise.shape[0],), 0.5, device=noise.device)
    contest.run("inference: vision + prefix", their_prefix, lambda: ours.model.prefill(ours._observe(batch)))
    contest.run(
        "inference: one denoising step",
        lambda: model.denoise_step(pads, cache, noise, flow_time),
        lambda: ours.model.denoise_step(noise, flow_time, context),
    )
    chunks = [lambda p=p: p.predict_action_chunk(dict(batch), noise=noise) for p in (theirs, ours)]
    torch.testing.assert_close(chunks[0](), chunks[1](), rtol=1e-3, atol=1e-3)
    contest.run("inference: whole chunk", *chunks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", choices=list(GEOMETRIES), default="tiny")
    parser.add_argument("--cameras", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None, help="torch threads")
    parser.add_argument("--compile", action="store_true", help="also compare the compiled samplers")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    theirs, ours = make_pair(args.geometry, args.cameras, args.device)
    lengths = (12,) * args.batch_size
    batch = {k: v.to(args.device) for k, v in make_batch(theirs, args.batch_size, lengths).items()}
    noise = torch.randn(args.batch_size, 50, theirs.config.max_action_dim, device=args.device)
    flow_time = torch.linspace(0.1, 0.9, args.batch_size, device=args.device)
    print(
        f"{args.geometry} geometry, {args.cameras} camera(s), batch {args.batch_size}, {args.device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, fp32"
    )
    print(f"{'':34s} {'LeRobot smolvla':>14s} {'vla_flow':>14s}   faster")
    contest = Contest(args.repeats, args.device)
    compare_inference(contest, theirs, ours, batch, noise)
    compare_training(contest, theirs, ours, batch, noise, flow_time)
    batch["index"] = torch.arange(args.batch_size)
    compare_whole_step(contest, theirs, ours, batch, noise, flow_time)
    if args.compile:
        ours.model.denoise_step = torch.compile(ours.model.denoise_step, fullgraph=True)
        chunks = [lambda p=p: p.predict_action_chunk(dict(batch), noise=noise) for p in (theirs, ours)]
        contest.run("whole chunk, ours compiled", *chunks)


if __name__ == "__main__":
    main()
