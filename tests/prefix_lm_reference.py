"""What token decoding computes, built once more on transformers' own Llama: one pass, no cache, one mask for all."""

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from lerobot_vla_plugin.models.backbone import Observation
from lerobot_vla_plugin.models.token_decoding import ActionTokenModel, DecodingGrammar

# SmolVLA's own, whatever the VLM's configuration says (facts: LeRobot's smolvla).
SMOLVLA_WAVELENGTH = 10_000.0


def reference_logits(
    model: ActionTokenModel, observation: Observation, grammar: DecodingGrammar, tokens: Tensor
) -> Tensor:
    """Logits after the begin marker and after each token (b, n), (b, n + 1, v + 1)."""
    smolvla = model.backbone.embedding_scale != 1
    llama = _llama(model, SMOLVLA_WAVELENGTH if smolvla else None)
    scale = llama.config.hidden_size**0.5 if smolvla else 1.0
    begin = torch.full_like(tokens[:, :1], model.geometry.vocab_size)
    missing = grammar.missing(grammar.follow(tokens))
    embedded = [
        *(images * scale for images in observation.image_tokens),
        llama.embed_tokens(observation.language) * scale,
        model.state_proj(observation.state)[:, None],
        (model.action_embedding(torch.cat([begin, tokens], dim=1)) + model.missing_embedding(missing)) * scale,
    ]
    pad_masks = torch.cat(
        [
            *(m[:, None].expand(-1, x.shape[1]) for m, x in zip(observation.image_masks, embedded, strict=False)),
            observation.language_masks,
            torch.ones(len(tokens), tokens.shape[1] + 2, dtype=torch.bool),
        ],
        dim=1,
    )
    num_suffix = tokens.shape[1] + 1
    # Tokens of a block see each other and every earlier block: images and language, then state, then each action token.
    blocks = torch.zeros(pad_masks.shape[1], dtype=torch.long)
    blocks[-num_suffix - 1 :] = torch.arange(1, num_suffix + 2)
    seen = (blocks[:, None] >= blocks[None, :])[None] & pad_masks[:, None, :]
    mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None]
    output = llama(
        inputs_embeds=torch.cat(embedded, dim=1), attention_mask=mask, position_ids=pad_masks.cumsum(dim=1) - 1
    )
    return output.last_hidden_state[:, -num_suffix:] @ model.action_head.weight.T


def _llama(model: ActionTokenModel, wavelength: float | None) -> LlamaModel:
    text = model.backbone.config.text_config
    config = LlamaConfig(**{**text.to_dict(), "num_hidden_layers": len(model.backbone.text_model.layers)})
    if wavelength is not None:
        config.rope_parameters = {"rope_type": "default", "rope_theta": wavelength}
    config._attn_implementation = "eager"
    llama = LlamaModel(config).eval()
    llama.load_state_dict(model.backbone.text_model.state_dict())
    return llama
