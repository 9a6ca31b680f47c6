"""Images, language and state -> prefix -> its keys and values in every layer.

The vision tower and the connector are transformers' SmolVLM modules; the language model is our own stack of
`DecoderLayer`, because the action expert needs every layer's keys and values and nothing of the last layer's output.

Shapes: b batch, c cameras, n image tokens a camera, t language tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMConfig
from transformers.models.smolvlm.modeling_smolvlm import (
    SmolVLMConnector,
    SmolVLMVisionEmbeddings,
    SmolVLMVisionTransformer,
)

from .conv_stem import STEM_WIDTHS, put_stem_before
from .cpu_linear import use_cpu_linear
from .keypoints import NUM_KEYPOINTS, ChunkGuesses, KeypointReader, Keypoints
from .transformer import (
    ROTARY_MAX_WAVELENGTH,
    DecoderLayer,
    KeysValues,
    LayerSizes,
    Past,
    Rotary,
    call_layer,
    rotary_embedding,
)

# "smolvla": embeddings times sqrt(width), wavelengths up to 10,000, whatever the VLM was trained with; "vlm": unscaled
# embeddings and the wavelengths of the VLM's own configuration. Weights fit the conventions they were trained under.
Conventions = Literal["smolvla", "vlm"]


@dataclass(frozen=True)
class Observation:
    """What the policy is conditioned on.

    Attributes:
        image_tokens: For each camera, tokens of the vision tower or of its keypoints, (b, n, width).
        image_masks: For each camera, whether the sample has it, (b,).
        language: Token ids, (b, t).
        language_masks: True for real tokens, (b, t).
        state: Normalised proprioception, (b, state_dim).
        guesses: Chunks that keypoints and state suggest; None without keypoints.
    """

    image_tokens: Sequence[Tensor]
    image_masks: Sequence[Tensor]
    language: Tensor
    language_masks: Tensor
    state: Tensor
    guesses: ChunkGuesses | None = None

    @property
    def guess(self) -> Tensor | None:
        """The likeliest guess, (b, chunk, joints), for what builds on it: no gradient leads back to what made it."""
        return None if self.guesses is None else self.guesses.likeliest.detach()


class PrefixCache(NamedTuple):
    """What the action side reads of a prefix.

    Attributes:
        layers: Keys and values of each backbone layer, (b, kv_heads, prefix, head_dim) each.
        pad_masks: True for real tokens, (b, prefix).
    """

    layers: list[KeysValues]
    pad_masks: Tensor


def text_layer_sizes(config: SmolVLMConfig) -> LayerSizes:
    """Geometry of one layer of the VLM's language model."""
    text = config.text_config
    return LayerSizes(
        width=text.hidden_size,
        mlp_width=text.intermediate_size,
        num_heads=text.num_attention_heads,
        num_kv_heads=text.num_key_value_heads,
        head_dim=text.head_dim,
        norm_eps=text.rms_norm_eps,
        attention_bias=text.attention_bias,
        mlp_bias=text.mlp_bias,
    )


def _scale_and_wavelength(config: SmolVLMConfig, conventions: Conventions) -> tuple[float, float]:
    text = config.text_config
    if conventions == "smolvla":
        return text.hidden_size**0.5, ROTARY_MAX_WAVELENGTH
    if conventions != "vlm":
        raise ValueError(f"conventions={conventions!r}: expected one of {', '.join(get_args(Conventions))}")
    rope = text.rope_parameters
    if rope["rope_type"] != "default":
        raise ValueError(f"the VLM's positions are rotated as {rope['rope_type']!r}; only 'default' is known here")
    return 1.0, float(rope["rope_theta"])


class TextModel(nn.Module):
    """Embedding and the first layers of a Llama language model."""

    def __init__(self, config: SmolVLMConfig, num_layers: int):
        super().__init__()
        sizes = text_layer_sizes(config)
        text = config.text_config
        self.embed_tokens = nn.Embedding(text.vocab_size, text.hidden_size, padding_idx=text.pad_token_id)
        self.layers = nn.ModuleList(DecoderLayer(sizes) for _ in range(num_layers))
        # Read by token decoding only; kept here because published weights have it.
        self.norm = nn.RMSNorm(sizes.width, eps=sizes.norm_eps)


class VLMBackbone(nn.Module):
    """The VLM without its language-model head.

    Args:
        config: Geometry, a SmolVLM configuration.
        num_layers: Language-model layers to use, counted from the first.
        gradient_checkpointing: Recompute layers in the backward pass instead of storing their activations.
        conventions: How embeddings are scaled and positions rotated: as in SmolVLA, or as in the VLM's own training.

    Raises:
        ValueError: There are no such conventions, or the VLM rotates in a way that is not known here.
    """

    def __init__(
        self,
        config: SmolVLMConfig,
        num_layers: int,
        gradient_checkpointing: bool = False,
        conventions: Conventions = "smolvla",
    ):
        super().__init__()
        self.embedding_scale, self.rotary_wavelength = _scale_and_wavelength(config, conventions)
        self.config = config
        self.gradient_checkpointing = gradient_checkpointing
        self.vision_model = SmolVLMVisionTransformer._from_config(config.vision_config, attn_implementation="sdpa")
        self.connector = SmolVLMConnector(config)
        if widths := getattr(config.vision_config, STEM_WIDTHS, None):
            put_stem_before(self.vision_model, widths)
        use_cpu_linear(self.vision_model)
        use_cpu_linear(self.connector)
        self.text_model = TextModel(config, num_layers)
        for module in (self.connector, self.text_model):
            module.apply(self._init_weights)
        num_points = getattr(config.vision_config, NUM_KEYPOINTS, 0)
        self.keypoints = KeypointReader(self.width, num_points) if num_points else None
        if num_points:
            cast(SmolVLMVisionEmbeddings, self.vision_model.embeddings).position_embedding.requires_grad_(False)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.text_config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    @property
    def width(self) -> int:
        """Width of the language model."""
        return self.config.text_config.hidden_size

    def is_frozen(self) -> bool:
        """Whether no parameter of the backbone learns (adapters of PEFT count as parameters)."""
        return not any(p.requires_grad for p in self.parameters())

    def is_vision_frozen(self) -> bool:
        """Whether neither the vision tower nor the connector learns."""
        vision = (self.vision_model, self.connector)
        return not any(p.requires_grad for module in vision for p in module.parameters())

    def encode_images(self, images: Tensor) -> Tensor:
        """Vision tower, pixel shuffle and projection.

        Args:
            images: Pixels in [-1, 1], (b, 3, height, width).

        Returns:
            Image tokens in the language model's width, (b, n, width).
        """
        vision = self.vision_model
        embeddings = cast(SmolVLMVisionEmbeddings, vision.embeddings)
        patches = embeddings.patch_embedding(images.to(embeddings.patch_embedding.weight.dtype))
        rows, columns = patches.shape[-2:]
        tokens = patches.flatten(2).transpose(1, 2)
        if self.keypoints is None:
            tokens = tokens + embeddings.position_embedding(self._patch_positions(rows, columns, images.device))
        # Else the points tell the places; tokens that know theirs learn where the cubes of the demonstrations stood.
        for layer in vision.encoder.layers:
            tokens = call_layer(layer, tokens, None, recompute=self.gradient_checkpointing)
        return self.connector(vision.post_layernorm(tokens))

    def _patch_positions(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Indices into the position table for a whole image, (rows * columns,).

        A grid of another size than the trained one is spread over the trained table. The arithmetic is the one of
        transformers' SmolVLM, rounding included: where 1/n is not exact, a neater formula picks other rows.
        """
        embeddings = cast(SmolVLMVisionEmbeddings, self.vision_model.embeddings)
        side, dtype = embeddings.num_patches_per_side, embeddings.patch_embedding.weight.dtype
        boundaries = torch.arange(1 / side, 1.0, 1 / side, device=device)

        def bucket(count: int) -> Tensor:
            steps = torch.arange(count, dtype=torch.float32, device=device)
            fractions = (steps * (1.0 / torch.tensor(count))).clamp(max=1.0 - 1e-6)
            return torch.bucketize(fractions.to(dtype), boundaries, right=True)

        return (bucket(rows)[:, None] * side + bucket(columns)[None, :]).flatten()

    def find_keypoints(self, image_tokens: list[Tensor], language: Tensor, language_masks: Tensor) -> Keypoints | None:
        """What is to be read in place of the tokens of each camera; None where this backbone reads all of them.

        Args:
            image_tokens: As `encode_images` gives them, for each camera.
            language: Token ids, (b, t).
            language_masks: True for real tokens, (b, t).
        """
        return self.keypoints(image_tokens, language, language_masks) if self.keypoints else None

    def embed_language(self, tokens: Tensor) -> Tensor:
        """Token ids (b, t) -> embeddings (b, t, width)."""
        return self.text_model.embed_tokens(tokens) * self.embedding_scale

    def embed_observation(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Join image tokens and language: embeddings (b, c * n + t, width) and their pad masks (b, c * n + t)."""
        language_masks = observation.language_masks
        if self.keypoints is None:
            words = self.embed_language(observation.language)
            images = [tokens.to(words.dtype) * self.embedding_scale for tokens in observation.image_tokens]
        else:
            words = self.keypoints.embed_instruction(observation.language, language_masks)
            language_masks = torch.ones_like(language_masks[:, :1])
            images = observation.image_tokens
        masks = [
            mask[:, None].expand(-1, tokens.shape[1])
            for mask, tokens in zip(observation.image_masks, images, strict=True)
        ]
        return torch.cat([*images, words], dim=1), torch.cat([*masks, language_masks], dim=1)

    def prefill(self, observation: Observation, state: Tensor, num_layers_read: int) -> PrefixCache:
        """Run the prefix through the language model.

        Images and language see each other and never the state, so with a frozen backbone they need no graph: only
        the state token carries one.

        Args:
            observation: Images and language.
            state: Embedded proprioception, (b, 1, width).
            num_layers_read: How many layers the action side reads; later ones are not computed.

        Returns:
            Keys and values of the layers read, for images, language and state in that order.
        """
        embedded, pad_masks = self.embed_observation(observation)
        positions = pad_masks.cumsum(dim=1) - 1
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen()):
            seen = self._run_layers(embedded, positions, pad_masks, num_layers_read)
        state_mask = torch.ones_like(pad_masks[:, :1])
        masks = torch.cat([pad_masks, state_mask], dim=1)
        state_position = pad_masks.sum(dim=1, keepdim=True)
        own = self._run_layers(state, state_position, masks, num_layers_read, past=seen)
        return PrefixCache([a.followed_by(b) for a, b in zip(seen, own, strict=True)], masks)

    def _run_layers(
        self,
        x: Tensor,
        positions: Tensor,
        key_masks: Tensor,
        num_layers_read: int,
        past: list[KeysValues] | None = None,
    ) -> list[KeysValues]:
        """Keys and values of tokens x in each layer read; x sees `past` and itself where `key_masks` (b, s) is True."""
        rotary = self._rotary(positions)
        # Masking keys only (not also the queries of padding) keeps every row of the softmax finite.
        mask = key_masks[:, None, None, :]
        result = []
        for index, layer in enumerate(self.text_model.layers[:num_layers_read]):
            layer_past = None if past is None else past[index]
            last = index == num_layers_read - 1
            x, own = call_layer(layer, x, rotary, mask, layer_past, last, recompute=self.gradient_checkpointing)
            result.append(own)
        return result

    def continue_prefix(self, x: Tensor, positions: Tensor, mask: Tensor, past: Sequence[Past]) -> Tensor:
        """Run later tokens through the whole language model.

        Args:
            x: Embedded tokens, (b, l, width).
            positions: Their positions, (b, l).
            mask: Which keys each may see, past keys first, (b, 1, 1 or l, s).
            past: Earlier tokens, for each layer.

        Returns:
            Features after the final norm, (b, l, width).
        """
        rotary = self._rotary(positions)
        for layer, layer_past in zip(self.text_model.layers, past, strict=True):
            x, _ = call_layer(layer, x, rotary, mask, layer_past, recompute=self.gradient_checkpointing)
        return self.text_model.norm(x)

    def _rotary(self, positions: Tensor) -> Rotary:
        return rotary_embedding(positions, self.config.text_config.head_dim, self.rotary_wavelength)
