"""`vla_flow`: batch -> observation -> flow-matching model -> action chunk."""

from typing import TYPE_CHECKING

import torch
from lerobot.policies.common.vla_utils import pad_vector
from lerobot.utils.constants import ACTION
from torch import Tensor

from .architecture import adopt_architecture, flow_config_from
from .assembly import freeze_flow, make_flow_model
from .configuration_vla import VLAFlowConfig
from .episode_losses import reduce_losses, steps_inside_episode
from .models.backbone import VLMBackbone
from .models.flow_matching import FlowMatchingModel
from .policy_base import VLAPolicy
from .pretrained import PolicyCheckpoint, load_vlm_weights, load_weights, weights_to_start_from
from .relative_actions import RelativeActions, fit_relative_actions

if TYPE_CHECKING:
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata


class VLAFlowPolicy(VLAPolicy):
    """SmolVLA-style flow-matching policy; see `VLAPolicy` for the arguments."""

    config_class = VLAFlowConfig  # pyright: ignore[reportAssignmentType]
    name = "vla_flow"  # pyright: ignore[reportAssignmentType]
    config: VLAFlowConfig
    model: FlowMatchingModel
    _no_split_modules = (*VLAPolicy._no_split_modules, "CrossAttentionLayer")
    loads = starts_from = ("vla_flow", "smolvla")

    def _adopt_architecture(self, start: PolicyCheckpoint) -> None:
        adopt_architecture(self.config, start)

    def _make_model(
        self,
        backbone: VLMBackbone,
        start: PolicyCheckpoint | None,
        dataset_meta: "LeRobotDatasetMetadata | None",
    ) -> FlowMatchingModel:
        model = make_flow_model(self.config, backbone)
        freeze_flow(self.config, model)
        self.relative_actions = self._make_relative_actions(start, dataset_meta)
        return model

    def _make_relative_actions(
        self, start: PolicyCheckpoint | None, dataset_meta: "LeRobotDatasetMetadata | None"
    ) -> RelativeActions | None:
        if not self.config.relative_actions:
            return None
        if start is None:
            return fit_relative_actions(dataset_meta, self.config.chunk_size)
        # The weights know chunks at the scales that they were trained under, which come with them.
        return RelativeActions(self.config.chunk_size, self.config.action_dim)

    def _load_vlm_weights(self) -> None:
        load_vlm_weights(self.model.backbone, self.config.vlm_model_name)

    def _start_from(self, start: PolicyCheckpoint) -> None:
        load_weights(self, weights_to_start_from(self, start), start.name)

    @classmethod
    def _config_of(cls, checkpoint: PolicyCheckpoint) -> VLAFlowConfig:
        return flow_config_from(checkpoint)

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

    def forward(
        self,
        batch: dict[str, Tensor],
        noise: Tensor | None = None,
        time: Tensor | None = None,
        reduction: str = "mean",
    ) -> tuple[Tensor, dict[str, float]]:
        """Training loss of a batch.

        Args:
            batch: Pre-processed batch; `action` is (b, chunk_size, joints), as the pipeline gives it.
            noise: Standard normal, (b * num_noise_draws, chunk_size, action_dim); drawn if None.
            time: Flow time, (b * num_noise_draws,); drawn if None.
            reduction: "mean" for a scalar, "none" for one loss a sample, (b,).

        Returns:
            The loss over real joints and steps inside the episode, and figures for the log.
        """
        joints = self.config.action_feature.shape[0]
        actions = batch[ACTION]
        if self.relative_actions:
            actions = self.relative_actions.normalize(actions, super()._read_state(batch))
        with self._autocast():
            actions = pad_vector(actions, self.config.action_dim)
            draws = self.config.num_noise_draws
            observation = self._observe(batch)
            losses = self.model.loss(observation, actions, noise, time, draws)[:, :, :joints]
        inside = steps_inside_episode(batch)
        loss = reduce_losses(losses.flatten(1), inside.repeat_interleave(joints, dim=1), reduction)
        guess_loss = self._guess_loss(observation, actions[:, :, :joints], inside, reduction)
        return loss + guess_loss, {"loss": loss.mean().item(), "guess_loss": guess_loss.mean().item()}

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], noise: Tensor | None = None, **kwargs) -> Tensor:
        """Predict a chunk of actions, (b, chunk_size, joints), for the pipeline to unnormalise.

        Args:
            batch: Pre-processed observation.
            noise: Standard normal, (b, chunk_size, action_dim); drawn if None.
            **kwargs: Real-time chunking options, which this policy does not have yet; any but None is refused.
        """
        self._prepare_to_plan(kwargs)
        with self._autocast():
            actions = self.model.sample_actions(self._observe(batch), self.config.num_steps, noise)
        actions = actions[:, :, : self.config.action_feature.shape[0]]
        if self.relative_actions:
            return self.relative_actions.unnormalize(actions, super()._read_state(batch))
        return actions

    def _read_state(self, batch: dict[str, Tensor]) -> Tensor:
        states = super()._read_state(batch)
        return self.relative_actions.scale_states(states) if self.relative_actions else states
