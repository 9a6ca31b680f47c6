"""Thin adapters between LeRobot's batch dict and the models: batch -> tensors -> action chunk, and the action queue."""

import json
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from huggingface_hub.constants import CONFIG_NAME
from lerobot.policies.common.vla_utils import pad_vector
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS, OBS_STATE
from torch import Tensor, nn

from .arms.contract import ContractCheck
from .assembly import (
    check_dataset,
    fix_contract,
    freeze,
    hold_to_contract,
    log_camera_mapping,
    make_backbone,
    make_flow_model,
    open_vision_cache,
    store_frozen_in_bfloat16,
)
from .camera_batch import fit_image, last_step, read_images
from .configuration_vla import VLAFlowConfig
from .models.backbone import Observation
from .pretrained import (
    BACKBONE_FOLDER,
    PolicyCheckpoint,
    adopt_architecture,
    flow_config_from,
    load_backbone_config,
    load_vlm_weights,
    load_weights,
    policy_weights,
    read_checkpoint,
)
from .vision_cache import VisionTokenCache

if TYPE_CHECKING:
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata


class VLAFlowPolicy(PreTrainedPolicy):
    """SmolVLA-style flow-matching policy.

    Args:
        config: Configuration whose features are set (LeRobot's `make_policy` sets them from the data set).
        dataset_meta: The data set to be trained on; checked, and named in the vision cache.
        checkpoint: Build the geometry of this checkpoint and load nothing; used by `from_pretrained`.
        **kwargs: LeRobot passes more than a policy needs.

    Raises:
        ValueError: If backbone, weights, features or data set do not fit.
    """

    # LeRobot declares both as None, for subclasses to fill in.
    config_class = VLAFlowConfig  # pyright: ignore[reportAssignmentType]
    name = "vla_flow"  # pyright: ignore[reportAssignmentType]
    config: VLAFlowConfig
    # Modules that FSDP wraps one by one.
    _no_split_modules = ("DecoderLayer", "CrossAttentionLayer", "SmolVLMEncoderLayer")

    def __init__(
        self,
        config: VLAFlowConfig,
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
        self._queue: deque[Tensor] = deque(maxlen=config.n_action_steps)
        start = checkpoint
        if checkpoint is None and config.init_from:
            start = read_checkpoint(config.init_from)
            adopt_architecture(config, start)
            log_camera_mapping(config, start)
        backbone_config = load_backbone_config(config.vlm_model_name) if start is None else start.backbone_config
        self.model = make_flow_model(config, make_backbone(config, backbone_config))
        freeze(config, self.model)
        if config.dtype == "bfloat16":
            store_frozen_in_bfloat16(self.model)
        if start is None:
            if config.load_vlm_weights and not config.is_scratch:
                load_vlm_weights(self.model.backbone, config.vlm_model_name)
        elif checkpoint is None:
            load_weights(self, policy_weights(start), start.name)
        # Named after the weights, so a checkpoint's must be loaded first: `from_pretrained` opens it then.
        self.vision_cache = self._open_vision_cache(dataset_meta) if checkpoint is None else None

    def _open_vision_cache(self, dataset_meta: "LeRobotDatasetMetadata | None") -> VisionTokenCache | None:
        return open_vision_cache(self.config, self.model.backbone, self._image_size, dataset_meta)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_name_or_path: str | Path,
        *,
        config: VLAFlowConfig | None = None,
        revision: str | None = None,
        dataset_meta: "LeRobotDatasetMetadata | None" = None,
        strict: bool = True,
        dataset_stats: dict | None = None,
        **hub_options,
    ) -> Self:
        """Load a `vla_flow` checkpoint, or a `smolvla` one as LeRobot writes it.

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
            raise ValueError("strict=False would leave missing weights random; vla_flow always loads strictly")
        checkpoint = read_checkpoint(pretrained_name_or_path, revision=revision, **hub_options)
        policy = cls(config or flow_config_from(checkpoint), dataset_meta=dataset_meta, checkpoint=checkpoint)
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

    def _get_default_peft_targets(self) -> dict[str, object]:
        projections = "state_proj|action_in_proj|action_out_proj|action_time_mlp_in|action_time_mlp_out"
        return {
            "target_modules": rf"(model\.action_expert\..*\.(q|v)_proj|model\.({projections}))",
            "modules_to_save": [],
        }

    def _validate_peft_config(self, peft_config) -> None:
        """Adapters need a base that can be loaded again: a checkpoint, or what `init_from` names."""
        if not self.config.pretrained_path and self.config.init_from:
            self.name_or_path = self.config.init_from
            return
        super()._validate_peft_config(peft_config)

    def train(self, mode: bool = True) -> Self:
        """Switch training mode; frozen parts of the backbone always stay in evaluation mode."""
        super().train(mode)
        if self.config.freezes_vision:
            self.model.backbone.vision_model.eval()
        if self.config.freezes_backbone:
            self.model.backbone.eval()
        return self

    def reset(self) -> None:
        """Forget queued actions; called at the start of an episode."""
        self._queue.clear()
        if self._contract_check:
            self._contract_check.start_episode()

    def _autocast(self) -> torch.autocast:
        device = self.model.state_proj.weight.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.config.dtype == "bfloat16")

    def forward(
        self,
        batch: dict[str, Tensor],
        noise: Tensor | None = None,
        time: Tensor | None = None,
        reduction: str = "mean",
    ) -> tuple[Tensor, dict[str, float]]:
        """Training loss of a batch.

        Args:
            batch: Pre-processed batch; `action` is (b, chunk_size, joints), normalised.
            noise: Standard normal, (b, chunk_size, action_dim); drawn if None.
            time: Flow time, (b,); drawn if None.
            reduction: "mean" for a scalar, "none" for one loss a sample, (b,).

        Returns:
            The loss over real joints and steps inside the episode, and figures for the log.
        """
        if reduction not in ("mean", "none"):
            raise ValueError(f"reduction={reduction!r}: expected 'mean' or 'none'")
        joints = self.config.action_feature.shape[0]
        with self._autocast():
            actions = pad_vector(batch[ACTION], self.config.action_dim)
            losses = self.model.loss(self._observe(batch), actions, noise, time)[:, :, :joints]
        inside = (
            ~batch["action_is_pad"] if "action_is_pad" in batch else torch.ones_like(losses[..., 0], dtype=torch.bool)
        )
        sums = (losses * inside[..., None]).sum(dim=(1, 2))
        counts = inside.sum(dim=1) * joints
        loss = sums / counts.clamp_min(1) if reduction == "none" else sums.sum() / counts.sum().clamp_min(1)
        return loss, {"loss": loss.mean().item()}

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], noise: Tensor | None = None, **kwargs) -> Tensor:
        """Predict a chunk of normalised actions, (b, chunk_size, joints).

        Args:
            batch: Pre-processed observation.
            noise: Standard normal, (b, chunk_size, action_dim); drawn if None.
            **kwargs: Real-time chunking options, which this policy does not have yet; any but None is refused.
        """
        unsupported = [name for name, value in kwargs.items() if value is not None]
        if unsupported:
            raise ValueError(f"vla_flow does not support {', '.join(unsupported)} yet; use --inference.type=sync")
        if self._contract_check:
            self._contract_check.meet_arms()
        self.eval()
        with self._autocast():
            actions = self.model.sample_actions(self._observe(batch), self.config.num_steps, noise)
        return actions[:, :, : self.config.action_feature.shape[0]]

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """The next normalised action, (b, joints); predicts a new chunk when the queue has run out.

        Raises:
            ValueError: If the chunk is not finite; the arm then keeps its last goal.
            ContractMismatchError: If the arm, or the rate of these calls, is not what the policy was trained on.
        """
        if self._contract_check:
            self._contract_check.before_action(plans=not self._queue)
        if not self._queue:
            actions = self.predict_action_chunk(batch, noise)[:, : self.config.n_action_steps]
            if not torch.isfinite(actions).all():
                raise ValueError("the policy predicted actions that are not finite; none of them is sent to the arm")
            self._queue.extend(actions.unbind(dim=1))
        return self._queue.popleft()

    @property
    def _image_size(self) -> tuple[int, int]:
        """(width, height) that pictures are fitted into, in [pixels]."""
        side = self.model.backbone.config.vision_config.image_size
        return self.config.resize_imgs_with_padding or (side, side)

    def _observe(self, batch: dict[str, Tensor]) -> Observation:
        images, masks = read_images(self.config, batch)
        state = last_step(batch[OBS_STATE], 2)
        expected = self.config.robot_state_feature.shape[0]
        if state.shape[-1] != expected:
            raise ValueError(f"{OBS_STATE}: expected {expected} joints, got {state.shape[-1]}")
        return Observation(
            image_tokens=self._image_tokens(images, batch),
            image_masks=masks,
            language=batch[OBS_LANGUAGE_TOKENS],
            language_masks=batch[OBS_LANGUAGE_ATTENTION_MASK].bool(),
            state=pad_vector(state, self.config.state_dim),
        )

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
