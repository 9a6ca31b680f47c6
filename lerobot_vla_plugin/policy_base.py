"""What the adapters of all policies share: LeRobot's batch dict -> observation, checkpoints, and the next action."""

import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from huggingface_hub.constants import CONFIG_NAME
from lerobot.policies.common.vla_utils import pad_vector
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS, OBS_STATE
from torch import Tensor, nn

from .arms.contract import ContractCheck
from .assembly import (
    check_dataset,
    fix_contract,
    hold_to_contract,
    log_camera_mapping,
    make_backbone,
    make_chunk_regressor,
    open_vision_cache,
    store_frozen_in_bfloat16,
)
from .camera_batch import fit_image, jitter_colors, last_step, read_images
from .chunk_execution import ChunkExecution
from .config_base import VLAConfig
from .episode_losses import reduce_losses
from .models.backbone import Observation, VLMBackbone
from .pretrained import (
    BACKBONE_FOLDER,
    PolicyCheckpoint,
    load_backbone_config,
    load_weights,
    policy_weights,
    read_checkpoint,
)
from .vision_cache import VisionTokenCache

if TYPE_CHECKING:
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata


class VLAPolicy(PreTrainedPolicy):
    """A policy on a vision-language backbone; subclasses bring the model.

    Args:
        config: Configuration whose features are set (LeRobot's `make_policy` sets them from the data set).
        dataset_meta: The data set to be trained on; checked, and named in the vision cache.
        checkpoint: Build the geometry of this checkpoint and load nothing; used by `from_pretrained`.
        **kwargs: LeRobot passes more than a policy needs.

    Raises:
        ValueError: If backbone, weights, features or data set do not fit.
    """

    # LeRobot declares both as None and wants them in every subclass.
    config_class = VLAConfig  # pyright: ignore[reportAssignmentType]
    name = "vla"  # pyright: ignore[reportAssignmentType]
    config: Any
    model: Any
    # Modules that FSDP wraps one by one.
    _no_split_modules: ClassVar[tuple[str, ...]] = ("DecoderLayer", "SmolVLMEncoderLayer")
    # Types of checkpoints that `from_pretrained` loads, and that `init_from` may name.
    loads: ClassVar[tuple[str, ...]] = ()
    starts_from: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        config: VLAConfig,
        dataset_meta: "LeRobotDatasetMetadata | None" = None,
        checkpoint: PolicyCheckpoint | None = None,
        **kwargs,
    ):
        super().__init__(config)
        config.validate_features()
        if dataset_meta is not None:
            check_dataset(config, dataset_meta)
            fix_contract(config, dataset_meta)
        self._contract_check: ContractCheck | None = None
        self._execution = ChunkExecution(config.n_action_steps, config.finish_chunk_when_still)
        start = checkpoint
        if checkpoint is None and config.init_from:
            start = read_checkpoint(config.init_from, self.starts_from)
            self._adopt_architecture(start)
            log_camera_mapping(config, start)
        backbone_config = load_backbone_config(config.vlm_model_name) if start is None else start.backbone_config
        self.model = self._make_model(make_backbone(config, backbone_config), start, dataset_meta)
        self.chunk_regressor = make_chunk_regressor(config, self.model.backbone)
        if config.dtype == "bfloat16":
            store_frozen_in_bfloat16(self.model)
        if start is None:
            if config.load_vlm_weights and not config.is_scratch:
                self._load_vlm_weights()
        elif checkpoint is None:
            self._start_from(start)
        # Named after the weights, so a checkpoint's must be loaded first: `from_pretrained` opens it then.
        self.vision_cache = self._open_vision_cache(dataset_meta) if checkpoint is None else None

    @abstractmethod
    def _adopt_architecture(self, start: PolicyCheckpoint) -> None:
        """Give the configuration the architecture of the checkpoint that `init_from` names."""

    @abstractmethod
    def _make_model(
        self,
        backbone: VLMBackbone,
        start: PolicyCheckpoint | None,
        dataset_meta: "LeRobotDatasetMetadata | None",
    ) -> nn.Module:
        """The model on an empty backbone, with what does not learn frozen.

        Args:
            backbone: Geometry of the configuration.
            start: Checkpoint whose weights follow.
            dataset_meta: The data set to be trained on.
        """

    @abstractmethod
    def _load_vlm_weights(self) -> None:
        """Start the backbone from the weights of the VLM that the configuration names."""

    @abstractmethod
    def _start_from(self, start: PolicyCheckpoint) -> None:
        """Take the weights of the checkpoint that `init_from` names."""

    @classmethod
    @abstractmethod
    def _config_of(cls, checkpoint: PolicyCheckpoint) -> VLAConfig:
        """Configuration under which a checkpoint runs as this policy."""

    def _guess_loss(self, observation: Observation, actions: Tensor, inside: Tensor, reduction: str) -> Tensor:
        """Weighted loss of the guesses, as `reduce_losses` has it; 0 where there are none.

        Args:
            observation: With the guesses.
            actions: What was to be guessed, (b, chunk, joints).
            inside: Which steps lie inside the episode, (b, chunk).
            reduction: "mean" or "none".
        """
        if self.chunk_regressor is None or observation.guesses is None:
            return actions.new_zeros(() if reduction == "mean" else len(actions))
        losses = self.chunk_regressor.losses(observation.guesses, actions, inside)[:, None]
        weights = inside.float().mean(dim=1, keepdim=True)
        return self.config.guess_loss_weight * reduce_losses(losses, weights, reduction)

    def _open_vision_cache(self, dataset_meta: "LeRobotDatasetMetadata | None") -> VisionTokenCache | None:
        return open_vision_cache(self.config, self.model.backbone, self._image_size, dataset_meta)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_name_or_path: str | Path,
        *,
        config: VLAConfig | None = None,
        revision: str | None = None,
        dataset_meta: "LeRobotDatasetMetadata | None" = None,
        strict: bool = True,
        dataset_stats: dict | None = None,
        **hub_options,
    ) -> Self:
        """Load a checkpoint of one of the types in `loads`.

        Args:
            pretrained_name_or_path: Folder or hub name.
            config: Configuration to use instead of the checkpoint's (LeRobot passes its own copy, with the
                command line's changes).
            revision: Branch, tag or commit on the hub.
            dataset_meta: The data set to be trained on.
            strict: Must be True: a policy with missing weights would drive an arm at random.
            dataset_stats: Unused; the processors own the statistics.
            **hub_options: As `huggingface_hub.hf_hub_download` takes them.

        Returns:
            The policy in evaluation mode, on `config.device`.

        Raises:
            ValueError: If the checkpoint is incomplete or does not fit, or an arm that is already connected does not
                fit the checkpoint (`ContractMismatchError`).
        """
        if not strict:
            raise ValueError(f"strict=False would leave missing weights random; {cls.name} always loads strictly")
        checkpoint = read_checkpoint(pretrained_name_or_path, cls.loads, revision=revision, **hub_options)
        policy = cls(config or cls._config_of(checkpoint), dataset_meta=dataset_meta, checkpoint=checkpoint)
        load_weights(policy, policy_weights(checkpoint), checkpoint.name)
        policy.vision_cache = policy._open_vision_cache(dataset_meta)
        policy.to(policy.config.device)
        policy.eval()
        if dataset_meta is None:
            policy._contract_check = hold_to_contract(policy.config)
        return policy

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Save weights and configuration, with the backbone's own configuration beside them.

        LeRobot stores only the backbone's hub name; with this the folder loads without network.
        """
        super()._save_pretrained(save_directory, state_dict=state_dict)
        folder = save_directory / BACKBONE_FOLDER
        folder.mkdir(exist_ok=True)
        text = json.dumps(self.model.backbone.config.to_dict(), indent=2, sort_keys=True)
        (folder / CONFIG_NAME).write_text(text + "\n")

    def get_optim_params(self) -> list[nn.Parameter]:
        """Parameters that learn."""
        return [p for p in self.parameters() if p.requires_grad]

    def train(self, mode: bool = True) -> Self:
        """Switch training mode; frozen parts of the backbone always stay in evaluation mode."""
        super().train(mode)
        if self.config.freezes_vision:
            self.model.backbone.vision_model.eval()
        if self.config.freezes_backbone:
            self.model.backbone.eval()
        return self

    def reset(self) -> None:
        """Forget planned actions; called at the start of an episode."""
        self._execution.clear()
        if self._contract_check:
            self._contract_check.start_episode()

    def _autocast(self) -> torch.autocast:
        device = next(self.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.config.dtype == "bfloat16")

    def _prepare_to_plan(self, options: Mapping[str, object]) -> None:
        """What comes before every prediction.

        Args:
            options: Real-time chunking options, which no policy of this package has yet; any but None is refused.
        """
        unsupported = [name for name, value in options.items() if value is not None]
        if unsupported:
            raise ValueError(f"{self.name} does not support {', '.join(unsupported)} yet; use --inference.type=sync")
        if self._contract_check:
            self._contract_check.meet_arms()
        self.eval()

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """The next action, (b, joints), as `predict_action_chunk` gives it; predicts when a chunk has run out.

        Args:
            batch: Pre-processed observation.
            noise: Passed to `predict_action_chunk`; None for a policy that takes none.

        Raises:
            ValueError: If there is no chunk, or one that is not finite; the arm then keeps its last goal.
            ContractMismatchError: If the arm, or the rate of these calls, is not what the policy was trained on.
        """
        if self._contract_check:
            self._contract_check.before_action(plans=self._execution.needs_chunks)
        if self._execution.needs_chunks:
            chunks = self.predict_action_chunk(batch, noise=noise)
            if not torch.isfinite(chunks).all():
                raise ValueError("the policy predicted actions that are not finite; none of them is sent to the arm")
            self._execution.add(chunks, self._read_state(batch))
        return self._execution.pop()

    @property
    def _image_size(self) -> tuple[int, int]:
        """(width, height) that pictures are fitted into, in [pixels]."""
        side = self.model.backbone.config.vision_config.image_size
        return self.config.resize_imgs_with_padding or (side, side)

    def _observe(self, batch: dict[str, Tensor]) -> Observation:
        images, masks = read_images(self.config, batch)
        if self.training and self.config.color_jitter:
            images = {key: jitter_colors(image, self.config.color_jitter) for key, image in images.items()}
        language, language_masks = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK].bool()
        image_tokens = self._image_tokens(images, batch)
        state, guesses = self._read_state(batch), None
        if self.training and self.config.state_noise:
            state = state + self.config.state_noise * torch.randn_like(state)
        if keypoints := self.model.backbone.find_keypoints(image_tokens, language, language_masks):
            image_tokens = keypoints.tokens
            guesses = self.chunk_regressor and self.chunk_regressor(keypoints.features, state)
        return Observation(
            image_tokens=image_tokens,
            image_masks=masks,
            language=language,
            language_masks=language_masks,
            state=pad_vector(state, self.config.state_dim),
            guesses=guesses,
        )

    def _read_state(self, batch: dict[str, Tensor]) -> Tensor:
        """Proprioception as it comes out of the pipeline, (b, joints)."""
        state = last_step(batch[OBS_STATE], 2)
        expected = self.config.robot_state_feature.shape[0]
        if state.shape[-1] != expected:
            raise ValueError(f"{OBS_STATE}: expected {expected} joints, got {state.shape[-1]}")
        return state

    def _image_tokens(self, images: dict[str, Tensor], batch: dict[str, Tensor]) -> list[Tensor]:
        """Tokens of each camera, (b, n, width); all cameras go through the vision tower in one batch.

        Absent cameras have no tokens at all: masked tokens would change nothing and cost a forward pass.
        """
        if self.vision_cache is not None and self.training:
            return self.vision_cache.tokens(images, batch["index"], self._encode)
        tokens = self._encode(torch.cat([fit_image(image, self._image_size) for image in images.values()]))
        return list(tokens.chunk(len(images)))

    def _encode(self, pixels: Tensor) -> Tensor:
        backbone = self.model.backbone
        with torch.set_grad_enabled(torch.is_grad_enabled() and not backbone.is_vision_frozen()):
            return backbone.encode_images(pixels)
