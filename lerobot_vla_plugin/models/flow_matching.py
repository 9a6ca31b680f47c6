"""Flow matching over action chunks: velocity loss and Euler sampler (SmolVLA, arXiv 2506.01844).

time 1 is noise and 0 is the action, as in LeRobot and openpi: `x_t = time * noise + (1 - time) * actions`, and the
model predicts `u_t = noise - actions`, or `actions` themselves, from which `u_t = (x_t - actions) / time` follows: a
small network has then no need to carry the noise through all of its layers (arXiv 2511.13720).

Shapes: b batch, a width of state or action (padded where the checkpoint was trained so).
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from lerobot.policies.common.flow_matching import euler_integrate, sample_noise, sample_time_beta
from lerobot.policies.common.vla_utils import create_sinusoidal_pos_embedding
from torch import Tensor, nn

from .action_expert import ActionExpert, ExpertContext
from .backbone import Observation, PrefixCache, VLMBackbone, text_layer_sizes
from .cpu_linear import PackedCPULinear
from .transformer import LayerSizes, project_in_float32


@dataclass(frozen=True)
class ExpertGeometry:
    """How the action expert is laid over the backbone.

    Attributes:
        width_multiplier: Expert width over backbone width.
        num_layers: Expert layers; they read evenly spaced backbone layers.
        self_attention_every: Every how many layers one is joint self-attention, starting with the first; the others
            cross-attend. 1 makes all of them self-attention, 0 none.
    """

    width_multiplier: float
    num_layers: int
    self_attention_every: int


@dataclass(frozen=True)
class FlowGeometry:
    """The action side: its sizes, and whether it predicts actions in place of the velocity."""

    state_dim: int
    action_dim: int
    chunk_size: int
    expert: ExpertGeometry
    min_period: float
    max_period: float
    predicts_actions: bool = False


def expert_layer_sizes(backbone: LayerSizes, width_multiplier: float) -> LayerSizes:
    """Geometry of an expert layer: the backbone's heads, a narrower width, an MLP of 8/3 width rounded up to 256.

    Its layers see a chunk's few tokens in every denoising step, so their weights are packed once.
    """
    width = int(backbone.width * width_multiplier)
    mlp_width = 256 * -(-int(4 * int(2 * width / 3)) // 256)
    return replace(backbone, width=width, mlp_width=mlp_width, linear=PackedCPULinear)


def make_action_expert(
    backbone: VLMBackbone, num_backbone_layers: int, geometry: ExpertGeometry, gradient_checkpointing: bool
) -> ActionExpert:
    """Lay an action expert over the first `num_backbone_layers` layers of a backbone."""
    stride, rest = divmod(num_backbone_layers, geometry.num_layers)
    if rest:
        raise ValueError(
            f"num_expert_layers={geometry.num_layers} must divide the backbone's {num_backbone_layers} layers"
        )
    every = geometry.self_attention_every
    read = [index * stride for index in range(geometry.num_layers)]
    joint = [every > 0 and index % every == 0 for index in read]
    sizes = expert_layer_sizes(text_layer_sizes(backbone.config), geometry.width_multiplier)
    init_std = backbone.config.text_config.initializer_range
    return ActionExpert(sizes, read, joint, init_std, gradient_checkpointing, backbone.rotary_wavelength)


class FlowMatchingModel(nn.Module):
    """Backbone, action expert and the projections between them and robot space.

    Args:
        backbone: The vision-language backbone.
        geometry: Sizes of the action side.
        gradient_checkpointing: Recompute expert layers in the backward pass.
    """

    def __init__(self, backbone: VLMBackbone, geometry: FlowGeometry, gradient_checkpointing: bool = False):
        super().__init__()
        self.geometry = geometry
        self.backbone = backbone
        self.action_expert = make_action_expert(
            backbone, len(backbone.text_model.layers), geometry.expert, gradient_checkpointing
        )
        width = self.action_expert.sizes.width
        self.state_proj = nn.Linear(geometry.state_dim, backbone.width)
        self.action_in_proj = nn.Linear(geometry.action_dim, width)
        self.action_out_proj = nn.Linear(width, geometry.action_dim)
        self.action_time_mlp_in = nn.Linear(2 * width, width)
        self.action_time_mlp_out = nn.Linear(width, width)
        if geometry.predicts_actions:
            # Begin with the guess, or with the mean.
            for parameter in self.action_out_proj.parameters():
                nn.init.zeros_(parameter)

    def prefill(self, observation: Observation) -> PrefixCache:
        """Run the prefix once; its keys and values serve every denoising step."""
        state = self.state_proj(observation.state)[:, None, :]
        return self.backbone.prefill(observation, state, self.action_expert.num_backbone_layers_read)

    def loss(
        self,
        observation: Observation,
        actions: Tensor,
        noise: Tensor | None = None,
        time: Tensor | None = None,
        num_draws: int = 1,
    ) -> Tensor:
        """Squared error of the predicted velocity, or of the predicted actions.

        Args:
            observation: What the chunk is conditioned on.
            actions: Normalised actions, (b, chunk, action_dim).
            noise: Standard normal, (b * num_draws, chunk, action_dim), the draws of a sample one after the other; drawn
                if None.
            time: Flow time in (0, 1], (b * num_draws,); drawn from Beta(1.5, 1) * 0.999 + 0.001 if None.
            num_draws: Pairs of noise and time for each chunk. The prefix is computed once for all of them, as in
                CogACT (arXiv 2411.19650).

        Returns:
            Unreduced loss, the mean over the draws, shape of `actions`.
        """
        samples, chunk_size = actions.shape[:2]
        context = self.action_expert.prepare(self.prefill(observation), chunk_size)
        guess = observation.guess
        if num_draws > 1:
            context, actions = context.repeat(num_draws), actions.repeat_interleave(num_draws, dim=0)
            guess = None if guess is None else guess.repeat_interleave(num_draws, dim=0)
        if noise is None:
            noise = sample_noise(actions.shape, actions.device)
        if time is None:
            time = sample_time_beta(actions.shape[0], actions.device, alpha=1.5, beta=1.0, scale=0.999, offset=0.001)
        mix = time[:, None, None]
        x_t = mix * noise + (1 - mix) * actions
        predicted = self._predict(x_t, time, context, guess)
        wanted = actions if self.geometry.predicts_actions else noise - actions
        losses = F.mse_loss(predicted, wanted, reduction="none")
        return losses.unflatten(0, (samples, num_draws)).mean(dim=1)

    def sample_actions(self, observation: Observation, num_steps: int, noise: Tensor | None = None) -> Tensor:
        """Integrate the velocity from noise to an action chunk.

        Args:
            observation: What the chunk is conditioned on.
            num_steps: Euler steps.
            noise: Standard normal, (b, chunk, action_dim); drawn if None.

        Returns:
            Normalised actions, (b, chunk, action_dim).
        """
        state, geometry = observation.state, self.geometry
        if noise is None:
            noise = sample_noise((state.shape[0], geometry.chunk_size, geometry.action_dim), state.device)
        context = self.action_expert.prepare(self.prefill(observation), noise.shape[1])
        guess = observation.guess
        return euler_integrate(lambda x_t, time: self.denoise_step(x_t, time, context, guess), noise, num_steps)

    def denoise_step(self, x_t: Tensor, time: Tensor, context: ExpertContext, guess: Tensor | None = None) -> Tensor:
        """Velocity at x_t (b, chunk, action_dim) and flow time (b,) above 0, in float32.

        Args:
            x_t: The chunk on its way.
            time: Flow time.
            context: As `ActionExpert.prepare` gives it.
            guess: Of the chunk, (b, chunk, joints); looked at where actions are predicted.
        """
        predicted = self._predict(x_t, time, context, guess)
        return (x_t - predicted) / time[:, None, None] if self.geometry.predicts_actions else predicted

    def _predict(self, x_t: Tensor, time: Tensor, context: ExpertContext, guess: Tensor | None) -> Tensor:
        features = self.action_expert(self._embed_actions(x_t, time), context)
        # The velocity is summed over the Euler steps.
        predicted = project_in_float32(self.action_out_proj, features)
        if guess is None or not self.geometry.predicts_actions:
            return predicted
        return predicted + F.pad(guess, (0, predicted.shape[2] - guess.shape[2]))

    def _embed_actions(self, x_t: Tensor, time: Tensor) -> Tensor:
        embedded = self.action_in_proj(x_t)
        geometry = self.geometry
        time_embedding = create_sinusoidal_pos_embedding(
            time, embedded.shape[-1], geometry.min_period, geometry.max_period, device=embedded.device
        ).to(embedded.dtype)
        joined = torch.cat([embedded, time_embedding[:, None, :].expand_as(embedded)], dim=2)
        return self.action_time_mlp_out(F.silu(self.action_time_mlp_in(joined)))
