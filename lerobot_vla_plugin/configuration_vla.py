"""Policy configurations. One backbone section serves every policy of this package; each policy adds its action side.

Parsed by draccus, so every field is a command-line option: `lerobot-train --policy.type=vla_flow --policy.num_steps=5`.
"""

from dataclasses import dataclass, field
from typing import cast

from lerobot.configs import NormalizationMode, PreTrainedConfig

from .action_tokenizers import TOKENIZER_KINDS
from .config_base import Conventions, VLAConfig

PREDICTIONS = ("velocity", "actions")
# Far above any that is drawn at; what is not finite would make the logits so.
_HIGHEST_TEMPERATURE = 100.0


@PreTrainedConfig.register_subclass("vla_flow")
@dataclass
class VLAFlowConfig(VLAConfig):
    """SmolVLA-style policy: a VLM prefix and an action expert trained by flow matching.

    Attributes:
        num_steps: Euler steps from noise to actions.
        expert_width_multiplier: Width of the action expert over the backbone's.
        num_expert_layers: None: as many as the backbone's.
        self_attn_every_n_layers: Every how many layers the expert's is joint self-attention, the others cross-attend.
            2 is SmolVLA's (85.5, against 79.0 for cross-attention only; arXiv 2506.01844); 1 makes all joint,
            0 none.
        relative_actions: Predict body joints as their distance from the present state, each step of the chunk at its
            own scale. States and actions then stay in robot units on their way through the pipelines; the scales are
            measured when training starts and travel among the weights.
        prediction: What the action expert predicts: the "velocity", as SmolVLA's does, or the "actions", from which the
            velocity follows. The second is the better choice for a small expert that is trained from scratch; with a
            backbone that reads keypoints ("small") it then corrects the guess that is made of these.
        num_noise_draws: Pairs of noise and flow time for each chunk of a training batch. More of them teach more from
            the same pictures, for the cost of the action expert alone.
        min_period: Shortest period of the sine-cosine embedding of the flow time.
        max_period: Longest one.
    """

    num_steps: int = 10
    expert_width_multiplier: float = 0.75
    num_expert_layers: int | None = None
    self_attn_every_n_layers: int = 2
    relative_actions: bool = False
    prediction: str = "velocity"
    num_noise_draws: int = 1
    min_period: float = 4e-3
    max_period: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction={self.prediction!r}: expected one of {', '.join(PREDICTIONS)}")
        if self.num_noise_draws < 1:
            raise ValueError(f"num_noise_draws={self.num_noise_draws}: expected at least 1")
        if self.relative_actions:
            self.normalization_mapping |= dict.fromkeys(("STATE", "ACTION"), NormalizationMode.IDENTITY)
            padded = [name for name in ("max_state_dim", "max_action_dim") if getattr(self, name) is not None]
            if padded:
                raise ValueError(f"relative_actions=true is of real joints only; leave out {', '.join(padded)}")


@PreTrainedConfig.register_subclass("vla_fast")
@dataclass
class VLAFastConfig(VLAConfig):
    """Action tokens, predicted one after the other by the backbone itself (FAST, arXiv 2501.09747).

    The backbone learns unless `train_expert_only` is said; there is no expert, so that option leaves only the action
    ids and the projection of the state to learn. Where the vision tower is frozen, so is its connector: the image
    tokens of a frame never change, and `vision_cache` can keep them.

    `init_from` takes a vla_fast checkpoint, too. Its tokenizer and what it learned of the tokens stay, unless another
    kind or a path is named: then only the backbone and the projection of the state are taken.

    The state is one token of the prefix, not text as in openpi: better at equal steps (benchmarks/state_input.py).

    States and actions stay in robot units on their way through the pipelines. The tokenizer does the scaling, by the
    data that it was fitted on: so an id means the same motion in fine-tuning on other data, and errors are in robot
    units.

    Attributes:
        action_tokenizer: "fast", "bins" or "vq". None: what a checkpoint or `action_tokenizer_path` holds, or "fast".
        action_tokenizer_path: Folder or hub name of an action tokenizer: what `lerobot-vla tokenizer fit` wrote, or a
            published FAST tokenizer. None: fit one to the training data set. Read once, when a fresh policy is made;
            from then on it travels in the checkpoint.
        temperature: Of the tokens drawn at run time; 0 takes the likeliest.
        backbone_conventions: How the backbone's weights were trained: "vlm", as published, or "smolvla". None: "vlm"
            for a pretrained backbone, "smolvla" for `tiny` and for what starts from a smolvla or vla_flow checkpoint.
    """

    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    )

    action_tokenizer: str | None = None
    action_tokenizer_path: str | None = None
    temperature: float = 0.0
    backbone_conventions: str | None = None

    # openpi's presets: a pretrained backbone that learns as a whole takes smaller steps than an expert beside it.
    optimizer_lr: float = 2.5e-5
    optimizer_grad_clip_norm: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("action_tokenizer", TOKENIZER_KINDS), ("backbone_conventions", ("vlm", "smolvla"))):
            if getattr(self, name) not in (None, *allowed):
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(allowed)}")
        if not 0 <= self.temperature <= _HIGHEST_TEMPERATURE:
            raise ValueError(f"temperature={self.temperature}: expected 0 to {_HIGHEST_TEMPERATURE:g}")
        if self.max_action_dim is not None:
            raise ValueError(f"max_action_dim={self.max_action_dim}: action tokens are of real joints only")
        scaled = [kind for kind, mode in self.normalization_mapping.items() if mode is not NormalizationMode.IDENTITY]
        if scaled:
            raise ValueError(
                f"normalization_mapping of {', '.join(scaled)}: expected IDENTITY; the action tokenizer scales"
            )

    @property
    def freezes_backbone(self) -> bool:
        return bool(self.train_expert_only)

    @property
    def conventions(self) -> Conventions:
        default = "smolvla" if self.is_scratch else "vlm"
        return cast(Conventions, self.backbone_conventions or default)
