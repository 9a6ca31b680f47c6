"""What the configuration of every policy of this package shares: data, backbone, training presets."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.optim import AdamWConfig, CosineDecayWithWarmupSchedulerConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from lerobot.utils.feature_utils import dataset_to_policy_features

from .arms.annotation import JOINT_UNITS
from .arms.contract_terms import OVERRIDES, ArmContract
from .arms.dataset_contract import feature_joint_names

BUILT_IN_BACKBONES = ("tiny", "small")  # trained from scratch
DTYPES = ("float32", "bfloat16")
Conventions = Literal["smolvla", "vlm"]


@dataclass
class VLAConfig(PreTrainedConfig):
    """What every policy of this package shares: data, backbone, training presets.

    Attributes:
        chunk_size: Steps predicted at once.
        n_action_steps: Steps executed before re-planning. 10 is the best row of SmolVLA's own ablation (82.8,
            against 51.8 for 50; arXiv 2506.01844).
        finish_chunk_when_still: In place of the first `n_action_steps`, `select_action` executes a whole chunk where no
            joint has moved by this since the plan before: a policy that stops in front of what it is about to do goes
            through with it. 0 never does. In the unit in which the policy reads joint positions: their standard
            deviation, in `vla_fast` half of the span of their actions.
        max_state_dim: Width the state is padded to; None pads nothing. A policy started from SmolVLA keeps its 32.
        max_action_dim: The same for actions.
        resize_imgs_with_padding: (width, height) that pictures are fitted into; None means the backbone's own size.
        empty_cameras: How many declared cameras may be absent. Any other absent camera is an error.
        tokenizer_max_length: Longest instruction, in text tokens.
        pad_language_to: "longest" of the batch or "max_length" (one shape for all batches).
        vlm_model_name: Backbone: a hub name, a local folder, or a built-in one, trained from scratch: "small" takes
            pictures of 128 pixels through convolutions, "tiny" of 96 without.
        load_vlm_weights: Start from the VLM's pretrained weights. False is for experiments: a frozen random VLM learns
            nothing.
        num_vlm_layers: Language-model layers used, from the first. None: all of a built-in one, half of any other
            (SmolVLA).
        freeze_vision_encoder: None: frozen unless the backbone is trained from scratch.
        train_expert_only: Freeze the whole backbone. None: yes unless the backbone is trained from scratch.
        train_state_proj: Train the projection of the state into the prefix.
        init_from: Folder or hub name of a smolvla or vla_flow checkpoint, for vla_fast also of a vla_fast one, to start
            the weights from. Read once, when a fresh policy is made; a checkpoint of that run never reads it again.
        guess_loss_weight: Weight of a second loss where the backbone reads keypoints ("small"): of the whole chunk as
            guessed from the keypoints by a small network; the policy builds on the likeliest guess. 0 leaves it out.
        num_guesses: How many such guesses, of which only the nearest to what was demonstrated learns much. With one, a
            policy that sees two ways to go guesses their mean.
        color_jitter: How much light and colors of the pictures vary in training: brightness and contrast by twice this
            share, each color channel by this deviation. Drawn for each picture, on the policy's device.
        state_noise: Deviation of what is added to the joint positions in training, in the scaled ones that the policy
            reads. Without it, a policy that learns long from few demonstrations tells the moment of a demonstration by
            where exactly the arm is, and stands still where none was.
        gradient_checkpointing: Recompute layers in the backward pass: less memory, about a third more time.
        dtype: "float32", or "bfloat16": frozen weights stored in bfloat16 (not those that an adapter freezes), the rest
            computed in it (autocast).
        vision_cache: Folder in which each frame's vision tokens are kept after their first computation. Needs a frozen
            vision tower and unaugmented images.
        vision_cache_dtype: "float32" or "bfloat16" storage.
        contract: The arm, unit, rate and cameras of the training data; written when training starts, compared when the
            checkpoint is loaded to act.
        joint_unit: "degrees" or "percent" of the body joints, where the data set or the checkpoint does not say it.
        contract_overrides: Terms of the contract that the arm may differ in: robot_type, joints, unit, cameras, fps; on
            the command line as JSON: --policy.contract_overrides='["fps"]'.
        action_feature_names: Order of the action's joints, under the name by which LeRobot orders a robot's joints.
    """

    n_obs_steps: int = 1
    chunk_size: int = 50
    n_action_steps: int = 10
    finish_chunk_when_still: float = 0.0

    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.MEAN_STD,
            "ACTION": NormalizationMode.MEAN_STD,
        }
    )
    max_state_dim: int | None = None
    max_action_dim: int | None = None
    contract: ArmContract | None = None
    joint_unit: str | None = None
    contract_overrides: list[str] = field(default_factory=list)
    action_feature_names: list[str] | None = None

    resize_imgs_with_padding: tuple[int, int] | None = None
    empty_cameras: int = 0
    tokenizer_max_length: int = 48
    pad_language_to: str = "longest"

    vlm_model_name: str = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
    load_vlm_weights: bool = True
    num_vlm_layers: int | None = None
    freeze_vision_encoder: bool | None = None
    train_expert_only: bool | None = None
    train_state_proj: bool = True
    init_from: str | None = None

    guess_loss_weight: float = 3.0
    num_guesses: int = 1
    color_jitter: float = 0.0
    state_noise: float = 0.0
    gradient_checkpointing: bool = False
    dtype: str = "float32"
    vision_cache: Path | None = None
    vision_cache_dtype: str = "bfloat16"

    # SmolVLA's presets (arXiv 2506.01844).
    optimizer_lr: float = 1e-4
    optimizer_betas: tuple[float, float] = (0.9, 0.95)
    optimizer_eps: float = 1e-8
    optimizer_weight_decay: float = 1e-10
    optimizer_grad_clip_norm: float = 10.0
    scheduler_warmup_steps: int = 1_000
    scheduler_decay_steps: int = 30_000
    scheduler_decay_lr: float = 2.5e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.n_action_steps <= self.chunk_size:
            raise ValueError(
                f"n_action_steps={self.n_action_steps} must lie in 1..chunk_size={self.chunk_size}: "
                "no more steps can be executed than are predicted"
            )
        for name, allowed in (
            ("dtype", DTYPES),
            ("vision_cache_dtype", DTYPES),
            ("pad_language_to", ("longest", "max_length")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(allowed)}")
        if self.joint_unit not in (None, *JOINT_UNITS):
            raise ValueError(f"joint_unit={self.joint_unit!r}: expected one of {', '.join(JOINT_UNITS)}")
        if not 0 <= self.color_jitter < 0.5:
            raise ValueError(f"color_jitter={self.color_jitter}: expected 0 or more and less than 0.5")
        if self.num_guesses < 1:
            raise ValueError(f"num_guesses={self.num_guesses}: expected 1 or more; guess_loss_weight=0 leaves them out")
        for name in ("finish_chunk_when_still", "state_noise"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name}={getattr(self, name)}: expected 0 or more and less than 1, in the scaled joint positions "
                    "that the policy reads"
                )
        if self.color_jitter and self.vision_cache is not None:
            raise ValueError("vision_cache keeps the tokens of pictures as they are; leave out color_jitter")
        unknown = [name for name in self.contract_overrides if name not in OVERRIDES]
        if unknown:
            raise ValueError(f"contract_overrides={unknown}: expected some of {', '.join(OVERRIDES)}")
        if self.is_scratch and self.train_expert_only:
            raise ValueError(
                f"train_expert_only=true with vlm_model_name={self.vlm_model_name} would freeze a random backbone; "
                "leave it out, or name a pretrained backbone"
            )

    @property
    def is_scratch(self) -> bool:
        """Whether the backbone is a built-in one, which has no pretrained weights."""
        return self.vlm_model_name in BUILT_IN_BACKBONES

    @property
    def freezes_backbone(self) -> bool:
        """Whether the whole backbone stays as it is."""
        return not self.is_scratch if self.train_expert_only is None else self.train_expert_only

    @property
    def freezes_vision(self) -> bool:
        """Whether the vision tower stays as it is."""
        return not self.is_scratch if self.freeze_vision_encoder is None else self.freeze_vision_encoder

    @property
    def conventions(self) -> Conventions:
        """How the backbone scales embeddings and rotates positions; see `models.backbone`."""
        return "smolvla"

    @property
    def state_dim(self) -> int:
        """Width of the state the model sees."""
        return self.max_state_dim or self._required_feature(OBS_STATE, self.robot_state_feature).shape[0]

    @property
    def action_dim(self) -> int:
        """Width of the action the model sees."""
        return self.max_action_dim or self._required_feature(ACTION, self.action_feature).shape[0]

    def _required_feature(self, key: str, feature: PolicyFeature | None) -> PolicyFeature:
        if feature is None:
            features = [*(self.input_features or {}), *(self.output_features or {})]
            raise ValueError(f"the policy needs the feature {key!r}; the data set has: {', '.join(features) or 'none'}")
        return feature

    def set_dataset_feature_metadata(self, features: dict[str, dict[str, Any]]) -> None:
        """Take joint names and picture sizes from a data set's metadata; called by LeRobot's `make_policy`.

        In fine-tuning LeRobot keeps the old checkpoint's input features; what follows the data is updated here.

        Raises:
            ValueError: If the policy was trained on other joints, or the same ones in another order.
        """
        for key, feature in dataset_to_policy_features(features).items():
            if feature.type is FeatureType.VISUAL and key in (self.input_features or {}):
                self.input_features[key] = feature
        names = feature_joint_names(features.get(ACTION, {}))
        if not names:
            return
        trained = self.contract.joint_names if self.contract else []
        if trained and trained != names:
            raise ValueError(
                f"this policy was trained on the joints {trained}, the data set has {names}; "
                "train on data of the same joints in the same order, or start a new policy with --policy.init_from"
            )
        self.action_feature_names = names

    def validate_features(self) -> None:
        """Declare the empty cameras and refuse features that the model cannot take.

        Raises:
            ValueError: If state, action or every camera is missing, or a feature is wider than its padded width.
        """
        for index in range(self.empty_cameras):
            key = f"{OBS_IMAGES}.empty_camera_{index}"
            self.input_features[key] = PolicyFeature(type=FeatureType.VISUAL, shape=(3, 480, 640))
        if not self.image_features:
            raise ValueError(
                f"the policy needs at least one camera ({OBS_IMAGES}.<name>); "
                f"the data set has: {', '.join(self.input_features or {}) or 'no inputs'}"
            )
        state = self._required_feature(OBS_STATE, self.robot_state_feature)
        action = self._required_feature(ACTION, self.action_feature)
        for name, feature, width in (
            ("max_state_dim", state, self.max_state_dim),
            ("max_action_dim", action, self.max_action_dim),
        ):
            if width is not None and feature.shape[0] > width:
                raise ValueError(f"{name}={width} is narrower than the data set's {feature.shape[0]}")

    @property
    def empty_camera_keys(self) -> list[str]:
        """Cameras that may be absent."""
        return [f"{OBS_IMAGES}.empty_camera_{index}" for index in range(self.empty_cameras)]

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        return CosineDecayWithWarmupSchedulerConfig(
            peak_lr=self.optimizer_lr,
            decay_lr=self.scheduler_decay_lr,
            num_warmup_steps=self.scheduler_warmup_steps,
            num_decay_steps=self.scheduler_decay_steps,
        )

    @property
    def observation_delta_indices(self) -> list[int]:
        return [0]

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        return None
