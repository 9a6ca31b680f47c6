"""Action tokens on the backbone: cross-entropy over action ids, and decoding that always ends in a whole chunk.

The prefix (images, language, state) is bidirectional, the action tokens are causal, and the loss is taken on the action
tokens and on the end marker only (FAST, arXiv 2501.09747). Ids have an embedding and a head of their own (RT-2, arXiv
2307.15818, decodes over action ids only): the VLM's vocabulary takes no part in the soft-max.

Shapes: b batch, n action tokens, v action ids.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import Observation, PrefixCache, VLMBackbone
from .kv_cache import KVCache
from .transformer import project_in_float32


@dataclass(frozen=True)
class TokenGeometry:
    """Sizes of the action side.

    Attributes:
        state_dim: Width of the state.
        vocab_size: Action ids, markers not counted.
        max_tokens: Tokens of the longest sequence that completes a chunk.
        max_units: Units (coefficients, bins or codes) of a chunk.
    """

    state_dim: int
    vocab_size: int
    max_tokens: int
    max_units: int


class TokenLoss(NamedTuple):
    """Teacher-forced predictions of a batch, one for each action token and one for the end marker.

    Attributes:
        losses: Cross-entropy, (b, n + 1), in float32.
        masks: True where a sample has a token to predict, (b, n + 1); the rest is padding.
        hits: Whether the likeliest token is the right one, (b, n + 1).
    """

    losses: Tensor
    masks: Tensor
    hits: Tensor


class Draft(NamedTuple):
    """The action tokens of a chunk that was guessed, laid out by where a chunk stands that is being written.

    Attributes:
        tokens: For every row of the grammar, the token of the draft that completes the next unit, (b, rows).
        places: Which of that token's units it is, (b, rows): 0 where the draft can be followed from here.
    """

    tokens: Tensor
    places: Tensor

    def at(self, rows: Tensor) -> "Draft":
        """What the draft says where chunks stand, rows (b, n) -> (b, n)."""
        index = rows.long()
        return Draft(self.tokens.gather(1, index), self.places.gather(1, index))


class DecodingGrammar(nn.Module):
    """Which tokens may follow, so that every sequence is a whole chunk.

    Where a chunk stands (the units still missing and the state between tokens) is one number, its row. Row 0 is a whole
    chunk, after which nothing but the end marker may follow; the last row is a dead end to which a forbidden token
    leads. Two tables hold, for every row and token, what is added to the logit and the row after it: looking up is all
    that a step costs.

    Args:
        allowed: Tokens after which the chunk can still be completed, (states, total + 1, v), as a `TokenGrammar` of
            the action tokenizers has them; so are the other arguments.
        counts: Units that a token completes in a state, (states, v).
        next_states: State after it, (states, v).
    """

    penalties: Tensor
    next_rows: Tensor

    def __init__(self, allowed: Any, counts: Any, next_states: Any):
        super().__init__()
        allowed, counts, next_states = (torch.as_tensor(array) for array in (allowed, counts, next_states))
        states, units, vocab_size = allowed.shape
        missing = torch.arange(units, dtype=torch.int32)[None, :, None] - counts[:, None, :]
        dead_end = units * states
        after = torch.where(allowed, missing * states + next_states[:, None, :], dead_end).to(torch.int32)
        next_rows = F.pad(after.transpose(0, 1).flatten(0, 1), (0, 1, 0, 1), value=dead_end)
        next_rows[0, vocab_size] = 0
        self.end_marker = vocab_size
        self.num_states = states
        self.first_row = dead_end - states
        # Not in checkpoints: the tokenizer beside the weights says the same.
        penalties = torch.where(next_rows == dead_end, -torch.inf, 0.0)
        self.register_buffer("penalties", penalties, persistent=False)
        self.register_buffer("next_rows", next_rows.flatten(), persistent=False)

    def start(self, batch_size: int) -> Tensor:
        """Rows of chunks of which everything is missing, (b,)."""
        return torch.full((batch_size,), self.first_row, dtype=torch.int32, device=self.next_rows.device)

    def missing(self, rows: Tensor) -> Tensor:
        """Units that are missing where chunks stand; one more than a chunk has at the dead end."""
        return rows // self.num_states

    def follow(self, tokens: Tensor) -> Tensor:
        """Rows before each of the tokens (b, n) and after the last, (b, n + 1)."""
        rows = [self.start(len(tokens))]
        for token in tokens.unbind(dim=1):
            rows.append(self._after(rows[-1], token))
        return torch.stack(rows, dim=1)

    def lay_out(self, tokens: Tensor) -> Draft:
        """Lay a draft out by rows, those included that it does not come through itself.

        Args:
            tokens: Whole chunks, (b, n), at least one end marker behind each.
        """
        rows = self.follow(tokens)[:, :-1]
        missing = self.missing(rows)
        of_rows = torch.arange(self.first_row + 2 * self.num_states, device=tokens.device) // self.num_states
        asked = -of_rows.expand(len(tokens), -1)
        # The token that had begun when as much was missing; on the draft's own way the very one, as a character of
        # several tokens completes nothing until its last.
        index = (torch.searchsorted(-missing.long(), asked.contiguous(), right=True) - 1).clamp_min(0)
        steps = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        index = index.scatter(1, rows.long(), steps)
        return Draft(tokens.gather(1, index), (missing.gather(1, index) - of_rows).clamp_min(0))

    def _after(self, rows: Tensor, tokens: Tensor) -> Tensor:
        return self.next_rows.index_select(0, torch.add(tokens, rows, alpha=self.end_marker + 1))

    def choose(self, logits: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest of the tokens that are allowed.

        Args:
            logits: (b, v + 1), the end marker last. With any finite ones every sequence becomes a whole chunk; with
                others it does, or never reaches row 0.
            rows: Where the chunks stand, (b,).

        Returns:
            Tokens and the rows after them, (b,) each.
        """
        tokens = (logits + self.penalties.index_select(0, rows)).argmax(dim=1)
        return tokens, self._after(rows, tokens)


class ActionTokenModel(nn.Module):
    """Backbone, and the embedding and the head of action ids.

    Args:
        backbone: The vision-language backbone.
        geometry: Sizes of the action side.
        reads_draft: Whether there is a draft to begin from, as a backbone that reads keypoints makes one.
    """

    def __init__(self, backbone: VLMBackbone, geometry: TokenGeometry, reads_draft: bool = False):
        super().__init__()
        self.geometry = geometry
        self.backbone = backbone
        self.state_proj = nn.Linear(geometry.state_dim, backbone.width)
        # One row more than ids: the begin marker is only ever read, the end marker only ever predicted.
        self.action_embedding = nn.Embedding(geometry.vocab_size + 1, backbone.width)
        # What an id means depends on where in the chunk it stands, which the ids before it say only when added up.
        self.missing_embedding = nn.Embedding(geometry.max_units + 2, backbone.width)
        self.action_head = nn.Linear(backbone.width, geometry.vocab_size + 1, bias=False)
        self.draft_embedding = nn.Embedding(geometry.vocab_size + 1, backbone.width) if reads_draft else None
        self.draft_place_embedding = nn.Embedding(geometry.max_units + 1, backbone.width) if reads_draft else None
        modules = (self.action_embedding, self.missing_embedding, self.action_head)
        for module in (*modules, self.draft_embedding, self.draft_place_embedding):
            if module is not None:
                nn.init.normal_(module.weight, std=backbone.config.text_config.initializer_range)

    @property
    def begin_marker(self) -> int:
        """Id before the first action token, as the embedding counts."""
        return self.geometry.vocab_size

    @property
    def end_marker(self) -> int:
        """Id after the last action token, as the head counts."""
        return self.geometry.vocab_size

    @torch.no_grad()
    def init_from_vocabulary(self, added_tokens: int, lm_head: Tensor | None = None) -> None:
        """Start the action ids as the rarest words of the language model (RT-2, arXiv 2307.15818).

        Byte-pair ids are in the order of their merges, so the last ones before the added tokens are the rarest. A
        vocabulary with fewer words than there are action ids (the built-in `tiny` has 259) leaves the rows as they are.

        Args:
            added_tokens: Ids at the end of the vocabulary that are no words: image and other markers.
            lm_head: Weight of the VLM's own head, (vocabulary, width); None where it is the embedding (tied).
        """
        words = self.backbone.text_model.embed_tokens.weight
        end = len(words) - added_tokens
        start = end - self.geometry.vocab_size - 1
        if start < 0:
            return
        self.action_embedding.weight.copy_(words[start:end])
        self.action_head.weight.copy_((words if lm_head is None else lm_head)[start:end])

    def prefill(self, observation: Observation) -> PrefixCache:
        """Run the prefix once; its keys and values serve every action token."""
        state = self.state_proj(observation.state)[:, None, :]
        return self.backbone.prefill(observation, state, len(self.backbone.text_model.layers))

    def loss(
        self,
        observation: Observation,
        grammar: DecodingGrammar,
        tokens: Tensor,
        token_masks: Tensor,
        draft: Draft | None = None,
    ) -> TokenLoss:
        """Cross-entropy of every action token, given those before it, and of the end marker.

        Args:
            observation: What the chunk is conditioned on.
            grammar: What may follow what.
            tokens: Action tokens, (b, n).
            token_masks: True for real tokens, (b, n); padding follows them.
            draft: What was guessed, for a model that reads it.
        """
        tokens_read = tokens.where(token_masks, self.begin_marker)
        logits = self.teacher_forced_logits(observation, grammar, tokens_read, draft)
        targets = F.pad(tokens.where(token_masks, self.end_marker), (0, 1), value=self.end_marker)
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
        return TokenLoss(losses, F.pad(token_masks, (1, 0), value=True), logits.argmax(dim=-1) == targets)

    def teacher_forced_logits(
        self, observation: Observation, grammar: DecodingGrammar, tokens: Tensor, draft: Draft | None = None
    ) -> Tensor:
        """Logits after the begin marker and after each of the tokens (b, n), (b, n + 1, v + 1), in float32."""
        prefix = self.prefill(observation)
        inputs = F.pad(tokens, (1, 0), value=self.begin_marker)
        steps = torch.arange(inputs.shape[1], device=tokens.device)[None, :]
        causal = (steps.transpose(0, 1) >= steps).expand(len(tokens), 1, -1, -1)
        seen = prefix.pad_masks[:, None, None, :].expand(-1, -1, inputs.shape[1], -1)
        positions = prefix.pad_masks.sum(dim=1, keepdim=True) + steps
        mask = torch.cat([seen, causal], dim=3)
        rows = grammar.follow(tokens)
        embedded = self._embed(inputs, grammar.missing(rows), draft and draft.at(rows))
        return self._head(self.backbone.continue_prefix(embedded, positions, mask, prefix.layers))

    @torch.no_grad()
    def generate(
        self,
        observation: Observation,
        grammar: DecodingGrammar,
        draft: Draft | None = None,
        *,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode a whole chunk for every sample.

        Args:
            observation: What the chunks are conditioned on.
            grammar: What may follow what.
            draft: What was guessed, for a model that reads it.
            temperature: Of the soft-max that is drawn from; 0 takes the likeliest token.
            generator: Random numbers, on the device of the model.

        Returns:
            Tokens (b, max_tokens), the end marker where a chunk needs no more, and how many each has (b,).

        Raises:
            ValueError: The grammar is of other action ids, the logits are not finite, or a chunk was not complete after
                `max_tokens` tokens; the message names the ids.
        """
        if grammar.end_marker != self.end_marker:
            raise ValueError(f"the model has {self.end_marker} action ids, the grammar {grammar.end_marker}")
        prefix = self.prefill(observation)
        batch_size, device = len(prefix.pad_masks), prefix.pad_masks.device
        cache = KVCache.after(prefix, self.geometry.max_tokens)
        rows = grammar.start(batch_size)
        token = torch.full((batch_size,), self.begin_marker, device=device)
        tokens = torch.full((batch_size, self.geometry.max_tokens), self.end_marker, device=device)
        score = torch.zeros(batch_size, 1, device=device)
        for step in range(self.geometry.max_tokens):
            drafted = draft and draft.at(rows[:, None])
            logits = self.decode_one_token(token, grammar.missing(rows), cache, drafted)
            if temperature > 0:
                logits = _perturb(logits, temperature, generator)
            token, rows = grammar.choose(logits, rows)
            score += logits.gather(1, token[:, None])
            tokens[:, step] = token
            if not rows.any():
                break
        _check_decoded(tokens, rows, score)
        return tokens, (tokens != self.end_marker).sum(dim=1)

    def decode_one_token(self, token: Tensor, missing: Tensor, cache: KVCache, drafted: Draft | None = None) -> Tensor:
        """Append a token (b,), after which so many units are missing (b,); logits of the next, (b, v + 1), in float32.

        Shapes are the same for every token, so that a compiled step is compiled once. `drafted` is what the draft says
        there, (b, 1).
        """
        cache.show_next()
        mask = cache.visible[:, None, None, :]
        embedded = self._embed(token[:, None], missing[:, None], drafted)
        features = self.backbone.continue_prefix(embedded, cache.next_positions, mask, cache.layers)
        cache.advance()
        return self._head(features[:, 0])

    def _embed(self, tokens: Tensor, missing: Tensor, drafted: Draft | None) -> Tensor:
        """Embeddings (b, l, width) of tokens (b, l), after which so many units are missing and the draft says so."""
        embedded = self.action_embedding(tokens) + self.missing_embedding(missing)
        if self.draft_embedding is not None and self.draft_place_embedding is not None:
            if drafted is None:
                raise ValueError("this model goes by a draft of the chunk, and got none")
            embedded = embedded + self.draft_embedding(drafted.tokens) + self.draft_place_embedding(drafted.places)
        return embedded * self.backbone.embedding_scale

    def _head(self, features: Tensor) -> Tensor:
        return project_in_float32(self.action_head, features)  # bfloat16 leaves ties between the likeliest tokens


def _perturb(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """Add noise under which the likeliest token is a draw from the soft-max at that temperature (Gumbel-max trick)."""
    return logits - temperature * torch.empty_like(logits).exponential_(generator=generator).log()


def _check_decoded(tokens: Tensor, rows: Tensor, score: Tensor) -> None:
    damaged = (~torch.isfinite(score[:, 0])).nonzero()[:, 0].tolist()
    if damaged:
        raise ValueError(
            f"the model's logits for chunks {damaged} of {len(rows)} are not finite, so no action was decoded; are its "
            f"weights damaged? Ids of the first: {tokens[damaged[0]].tolist()}"
        )
    unfinished = rows.nonzero()[:, 0].tolist()
    if unfinished:
        ids = tokens[unfinished[0]].tolist()
        raise ValueError(
            f"chunks {unfinished} of {len(rows)} are not complete after {len(ids)} tokens, the longest that "
            f"max_tokens allows; nothing was decoded. Ids of the first: {ids}"
        )
