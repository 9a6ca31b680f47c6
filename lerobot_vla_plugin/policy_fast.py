"""`vla_fast`: batch -> observation -> action tokens, one after the other -> action chunk."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lerobot.utils.constants import ACTION
from torch import Tensor

from .action_tokens import ActionTokens
from .architecture import adopt_backbone
from .assembly import freeze_tokens
from .configuration_vla import VLAFastConfig
from .episode_losses import reduce_losses, steps_inside_episode
from .models.backbone import Observation, VLMBackbone
from .models.keypoints import ChunkGuesses
from .models.token_decoding import ActionTokenModel, Draft, TokenGeometry
from .policy_base import VLAPolicy
from .policy_codec import choose_codec, keeps_tokens
from .pretrained import (
    TOKENIZER_FOLDER,
    PolicyCheckpoint,
    load_tokenizer,
    load_vlm_weights,
    load_weights,
    policy_weights,
    select_weights,
    weights_to_start_from,
)

if TYPE_CHECKING:
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

logger = logging.getLogger(__name__)

# What an adapter learns as a whole: nothing of it comes from the VLM.
_ACTION_MODULES = ("state_proj", "action_embedding", "missing_embedding", "action_head")
# Decoding a few chunks costs about as much as one step of training them.
_DECODED_EVERY, _DECODED_SAMPLES = 50, 4


class VLAFastPolicy(VLAPolicy):
    """Autoregressive action tokens on the backbone; see `VLAPolicy` for the arguments.

    Every decode is a whole chunk of `chunk_size` steps, of which the first `n_action_steps` are executed.
    """

    config_class = VLAFastConfig  # pyright: ignore[reportAssignmentType]
    name = "vla_fast"  # pyright: ignore[reportAssignmentType]
    config: VLAFastConfig
    model: ActionTokenModel
    loads = ("vla_fast",)
    starts_from = ("vla_fast", "vla_flow", "smolvla")
    # Whether the weights this policy starts from were trained on the tokens it speaks.
    _keeps_tokens = True

    def _adopt_architecture(self, start: PolicyCheckpoint) -> None:
        self._keeps_tokens = keeps_tokens(self.config, start)
        adopt_backbone(self.config, start)
        self.config.backbone_conventions = self.config.backbone_conventions or start.conventions

    def _make_model(
        self,
        backbone: VLMBackbone,
        start: PolicyCheckpoint | None,
        dataset_meta: "LeRobotDatasetMetadata | None",
    ) -> ActionTokenModel:
        config = self.config
        config.backbone_conventions = config.conventions
        if start and start.conventions != config.conventions:
            raise ValueError(
                f"backbone_conventions={config.conventions!r}, but the weights of {start.name} were trained under "
                f"{start.conventions!r}; leave the option out"
            )
        codec = choose_codec(config, start if self._keeps_tokens else None, dataset_meta)
        self.action_tokens = ActionTokens(codec)
        self._num_forwards, self._last_error = 0, float("nan")
        grammar = codec.grammar
        geometry = TokenGeometry(config.state_dim, codec.vocab_size, grammar.longest, grammar.total)
        reads_draft = bool(config.guess_loss_weight) and backbone.keypoints is not None
        model = ActionTokenModel(backbone, geometry, reads_draft)
        freeze_tokens(config, model)
        return model

    def _load_vlm_weights(self) -> None:
        head = load_vlm_weights(self.model.backbone, self.config.vlm_model_name)
        words = load_tokenizer(self.config.vlm_model_name).vocab_size  # without the tokens that were added
        self.model.init_from_vocabulary(len(self.model.backbone.text_model.embed_tokens.weight) - words, head)

    def _start_from(self, start: PolicyCheckpoint) -> None:
        """Take everything, or the backbone and the state projection where the tokens are others."""
        if self._keeps_tokens:
            load_weights(self, weights_to_start_from(self, start), start.name)
            return
        weights = policy_weights(start)
        load_weights(self.model.backbone, select_weights(weights, "model.backbone."), start.name)
        state_proj = select_weights(weights, "model.state_proj.")
        if state_proj["weight"].shape == self.model.state_proj.weight.shape:
            load_weights(self.model.state_proj, state_proj, start.name)
        else:
            logger.warning("The state projection of %s is of another width; ours starts anew", start.name)

    @classmethod
    def _config_of(cls, checkpoint: PolicyCheckpoint) -> VLAFastConfig:
        assert isinstance(checkpoint.config, VLAFastConfig)
        return checkpoint.config

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save_pretrained(save_directory, state_dict=state_dict)
        self.action_tokens.codec.save(save_directory / TOKENIZER_FOLDER)

    def _get_default_peft_targets(self) -> dict[str, object]:
        return {
            "target_modules": r"model\.backbone\.text_model\.layers\..*\.(q|v)_proj",
            "modules_to_save": [f"model.{name}" for name in _ACTION_MODULES],
        }

    def _validate_peft_config(self, peft_config) -> None:
        """Adapters are loaded onto the base that they were trained on, whose tokens must be the same again."""
        if not self.config.pretrained_path:
            raise ValueError(
                "adapters of vla_fast need a vla_fast checkpoint as their base, because its tokens belong to it; train "
                "one first, then adapt it: --policy.path=<checkpoint> --peft.method_type=LORA"
            )

    def _read_state(self, batch: dict[str, Tensor]) -> Tensor:
        return self.action_tokens.scale_states(super()._read_state(batch))

    def _draft(self, observation: Observation, states: Tensor) -> Draft | None:
        """The guess of the chunk as action tokens; None where there is no guess. States are in robot units, (b, j)."""
        guess = observation.guess
        return None if guess is None else self.action_tokens.draft(self.action_tokens.unscale_actions(guess), states)

    def forward(self, batch: dict[str, Tensor], reduction: str = "mean") -> tuple[Tensor, dict[str, float]]:
        """Training loss of a batch.

        Args:
            batch: Pre-processed batch; `action` is (b, chunk_size, joints), in robot units.
            reduction: "mean" for a scalar, "none" for one loss a sample, (b,).

        Returns:
            The cross-entropy over action tokens and end markers, and figures for the log: the share of these that is
            the likeliest where it should be, and the error of a few chunks decoded from the batch, in robot units.
        """
        states, inside = super()._read_state(batch), steps_inside_episode(batch)
        tokens = self.action_tokens.encode(batch[ACTION], states, inside)
        with self._autocast():
            observation = self._observe(batch)
            draft = self._draft(observation, states)
            grammar = self.action_tokens.grammar
            losses, masks, hits = self.model.loss(observation, grammar, tokens.ids, tokens.masks, draft)
        weights = masks * tokens.weights
        loss = reduce_losses(losses, weights, reduction)
        guess_loss = self._guess_loss(observation, self.action_tokens.scale_states(batch[ACTION]), inside, reduction)
        figures = {
            "loss": loss.mean().item(),
            "guess_loss": guess_loss.mean().item(),
            "token_accuracy": reduce_losses(hits.float(), weights, "mean").item(),
        }
        if self.training and not self._is_sharded():
            figures["decoded_error"] = self._decoded_error(observation, batch[ACTION], states, inside)
        return loss + guess_loss, figures

    @torch.no_grad()
    def _decoded_error(self, observation: Observation, actions: Tensor, states: Tensor, inside: Tensor) -> float:
        """Mean absolute error of a few decoded chunks, in robot units; measured now and then, and kept in between.

        LeRobot logs the mean over its logging interval.
        """
        if self._num_forwards % _DECODED_EVERY == 0:
            few = slice(_DECODED_SAMPLES)
            decoded = self._decode(_select(observation, few), states[few], temperature=0.0)
            self._last_error = (decoded - actions[few]).abs()[inside[few]].mean().item()
        self._num_forwards += 1
        return self._last_error

    def _is_sharded(self) -> bool:
        """Whether FSDP holds the weights: processes that decode different numbers of tokens would wait for ever."""
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return False
        from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

        return any(isinstance(module, FSDPModule | FullyShardedDataParallel) for module in self.modules())

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs) -> Tensor:
        """Predict a chunk of actions, (b, chunk_size, joints), in robot units.

        Args:
            batch: Pre-processed observation.
            **kwargs: Noise and real-time chunking options, which this policy does not have; any but None is refused.

        Raises:
            ValueError: Some sequence is not a whole chunk, or the logits are not finite; the message names the ids. The
                arm keeps its last goal.
        """
        self._prepare_to_plan(kwargs)
        with self._autocast():
            observation = self._observe(batch)
        return self._decode(observation, super()._read_state(batch), self.config.temperature)

    def _decode(self, observation: Observation, states: Tensor, temperature: float) -> Tensor:
        draft = self._draft(observation, states)
        with self._autocast():
            grammar = self.action_tokens.grammar
            tokens, lengths = self.model.generate(observation, grammar, draft, temperature=temperature)
        self.token_counts = lengths.tolist()  # of the latest chunks, for `lerobot-vla plot`
        return self.action_tokens.decode(tokens, lengths, states)


def _select(observation: Observation, samples: slice) -> Observation:
    """Some samples of a batch."""
    return replace(
        observation,
        image_tokens=[tokens[samples] for tokens in observation.image_tokens],
        image_masks=[masks[samples] for masks in observation.image_masks],
        language=observation.language[samples],
        language_masks=observation.language_masks[samples],
        state=observation.state[samples],
        guesses=observation.guesses and ChunkGuesses(*(part[samples] for part in observation.guesses)),
    )
