"""Action tokens on the backbone: one set of numbers however they are computed, and every decode a whole chunk."""

import numpy as np
import pytest
import torch
from prefix_lm_reference import reference_logits
from token_models import (
    TOTAL,
    VOCAB_SIZE,
    alone,
    is_whole_chunk,
    make_model,
    make_observation,
    make_token_grammar,
    many_observations,
)

from lerobot_vla_plugin.action_tokenizers import TokenGrammar
from lerobot_vla_plugin.models.backbone import Observation
from lerobot_vla_plugin.models.kv_cache import KVCache
from lerobot_vla_plugin.models.token_decoding import ActionTokenModel, DecodingGrammar, Draft, _perturb

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def token_grammar() -> TokenGrammar:
    return make_token_grammar()


@pytest.fixture(scope="module")
def grammar(token_grammar) -> DecodingGrammar:
    return DecodingGrammar(token_grammar.allowed, token_grammar.counts, token_grammar.next_states)


@pytest.fixture
def model() -> ActionTokenModel:
    return make_model()


@pytest.fixture
def observation() -> Observation:
    return make_observation()


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(VOCAB_SIZE, (3, 7), generator=torch.Generator().manual_seed(2))


class TestNumbers:
    @pytest.mark.parametrize("conventions", ["smolvla", "vlm"])
    def test_same_as_transformers_llama(self, conventions, observation, tokens, grammar):
        model = make_model(conventions=conventions)
        expected = reference_logits(model, observation, grammar, tokens)
        torch.testing.assert_close(model.teacher_forced_logits(observation, grammar, tokens), expected, **CLOSE)

    def test_conventions_differ(self, observation, tokens, grammar):
        one, other = (
            make_model(conventions=c).teacher_forced_logits(observation, grammar, tokens) for c in ("smolvla", "vlm")
        )
        assert (one - other).abs().max() > 0.1

    @torch.no_grad()
    def test_cached_is_uncached_is_teacher_forced(self, model, observation, tokens, grammar):
        forced = model.teacher_forced_logits(observation, grammar, tokens)
        cache = KVCache.after(model.prefill(observation), 20)
        begin, rows = torch.full((3,), model.begin_marker), grammar.follow(tokens)
        for step, token in enumerate([begin, *tokens.unbind(dim=1)]):
            cached = model.decode_one_token(token, grammar.missing(rows[:, step]), cache)
            uncached = model.teacher_forced_logits(observation, grammar, tokens[:, :step])[:, -1]
            torch.testing.assert_close(cached, forced[:, step], **CLOSE)
            torch.testing.assert_close(uncached, forced[:, step], **CLOSE)

    @torch.no_grad()
    def test_later_tokens_do_not_alter_earlier_logits(self, model, observation, tokens, grammar):
        changed = tokens.clone()
        changed[:, 4:] = (changed[:, 4:] + 1) % VOCAB_SIZE
        one, other = (
            model.teacher_forced_logits(observation, grammar, tokens),
            model.teacher_forced_logits(observation, grammar, changed),
        )
        torch.testing.assert_close(one[:, :5], other[:, :5], **CLOSE)
        assert (one[:, 5:] - other[:, 5:]).abs().amax(dim=(0, 2)).min() > 1e-3

    @torch.no_grad()
    def test_padding_and_other_samples_change_nothing(self, model, observation, tokens, grammar):
        together = model.teacher_forced_logits(observation, grammar, tokens)
        for index in range(3):
            single = model.teacher_forced_logits(alone(observation, index), grammar, tokens[index : index + 1])
            torch.testing.assert_close(together[index : index + 1], single, **CLOSE)

    def test_bfloat16_is_close(self, model, observation, tokens, grammar):
        expected = model.teacher_forced_logits(observation, grammar, tokens)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.teacher_forced_logits(observation, grammar, tokens)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, expected, rtol=0.05, atol=0.03 * expected.abs().max().item())


class TestDraft:
    """A guess of the chunk, as tokens, beside every token that is written."""

    @pytest.fixture
    def model(self) -> ActionTokenModel:
        return make_model(reads_draft=True)

    @staticmethod
    def draw(grammar, generator) -> tuple[torch.Tensor, Draft]:
        """Three whole chunks, and the same as drafts."""
        rows, drafted = grammar.start(3), []
        while rows.any():
            token, rows = grammar.choose(torch.randn(3, VOCAB_SIZE + 1, generator=generator), rows)
            drafted.append(token)
        ids = torch.stack(drafted, dim=1)
        return ids, grammar.lay_out(torch.cat([ids, torch.full((3, 1), grammar.end_marker)], dim=1))

    @pytest.fixture
    def draft(self, grammar) -> Draft:
        return self.draw(grammar, torch.Generator().manual_seed(3))[1]

    @torch.no_grad()
    def test_cached_is_teacher_forced(self, model, observation, tokens, grammar, draft):
        forced = model.teacher_forced_logits(observation, grammar, tokens, draft)
        cache = KVCache.after(model.prefill(observation), 20)
        begin, rows = torch.full((3,), model.begin_marker), grammar.follow(tokens)
        for step, token in enumerate([begin, *tokens.unbind(dim=1)]):
            drafted = draft.at(rows[:, step : step + 1])
            cached = model.decode_one_token(token, grammar.missing(rows[:, step]), cache, drafted)
            torch.testing.assert_close(cached, forced[:, step], **CLOSE)

    @torch.no_grad()
    def test_each_sample_heeds_its_own(self, model, observation, tokens, grammar, draft):
        expected = model.teacher_forced_logits(observation, grammar, tokens, draft)
        other = Draft(*(table.roll(1, dims=0) for table in draft))
        assert (model.teacher_forced_logits(observation, grammar, tokens, other) - expected).abs().max() > 0.1
        for index in range(3):
            own = Draft(*(table[index : index + 1] for table in draft))
            ids = tokens[index : index + 1]
            single = model.teacher_forced_logits(alone(observation, index), grammar, ids, own)
            torch.testing.assert_close(expected[index : index + 1], single, **CLOSE)

    def test_it_learns_to_follow_one(self, model, observation, grammar):
        generator = torch.Generator().manual_seed(4)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)

        for _ in range(150):
            ids, draft = self.draw(grammar, generator)
            losses, masks, _ = model.loss(observation, grammar, ids, ids != grammar.end_marker, draft)
            optimizer.zero_grad()
            losses[masks].mean().backward()
            optimizer.step()
        ids, draft = self.draw(grammar, generator)
        written, _ = model.generate(observation, grammar, draft)
        assert (written[:, : ids.shape[1]] == ids).float().mean() > 0.9

    def test_without_one_it_is_refused(self, model, observation, grammar):
        with pytest.raises(ValueError, match="goes by a draft"):
            model.generate(observation, grammar)


class TestLoss:
    def test_cross_entropy_of_real_tokens_and_the_end_marker(self, model, observation, tokens, grammar):
        masks = torch.arange(7) < torch.tensor([[7], [3], [5]])
        losses, counted, hits = model.loss(observation, grammar, tokens, masks)
        for index, length in enumerate((7, 3, 5)):
            ids = tokens[index : index + 1, :length]
            logits = model.teacher_forced_logits(alone(observation, index), grammar, ids)[0]
            targets = [*ids[0].tolist(), VOCAB_SIZE]
            expected = -logits.log_softmax(dim=-1)[range(length + 1), targets]
            torch.testing.assert_close(losses[index, : length + 1], expected, **CLOSE)
            assert hits[index, : length + 1].tolist() == (logits.argmax(dim=-1) == torch.tensor(targets)).tolist()
            assert counted[index].tolist() == [True] * (length + 1) + [False] * (7 - length)

    def test_what_stands_in_the_padding_does_not_matter(self, model, observation, tokens, grammar):
        masks = torch.arange(7) < torch.tensor([[7], [3], [5]])
        other = tokens.where(masks, -100)
        one, two = (model.loss(observation, grammar, t, masks) for t in (tokens, other))
        assert torch.equal(one.losses[one.masks], two.losses[two.masks])

    def test_everything_learns_but_the_vision_tower_that_was_not_run(self, model, observation, tokens, grammar):
        model.loss(observation, grammar, tokens, torch.ones_like(tokens, dtype=torch.bool)).losses.mean().backward()
        silent = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
        assert all(name.startswith(("backbone.vision_model.", "backbone.connector.")) for name in silent), silent

    @pytest.mark.parametrize("frozen", [True, False])
    def test_a_frozen_backbone_keeps_no_graph_of_the_prefix(self, frozen, model, observation, tokens, grammar):
        model.backbone.requires_grad_(not frozen)
        images = [x.requires_grad_() for x in observation.image_tokens]
        model.loss(observation, grammar, tokens, torch.ones_like(tokens, dtype=torch.bool)).losses.mean().backward()
        assert [x.grad is None for x in images] == [frozen, frozen]
        assert all(p.grad.any() for p in (*model.state_proj.parameters(), *model.action_head.parameters()))

    def test_gradient_checkpointing_gives_the_same_gradients(self, observation, tokens, grammar):
        gradients = []
        for recompute in (False, True):
            model = make_model(gradient_checkpointing=recompute).train()
            model.loss(observation, grammar, tokens, torch.ones_like(tokens, dtype=torch.bool)).losses.mean().backward()
            gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        torch.testing.assert_close(gradients[1], gradients[0], **CLOSE)


class TestGeneration:
    def test_greedy_takes_the_likeliest_allowed_token_of_each_step(self, model, observation, token_grammar, grammar):
        tokens, lengths = model.generate(observation, grammar)
        assert tokens.shape == (3, model.geometry.max_tokens)
        for index, length in enumerate(lengths.tolist()):
            ids = tokens[index, :length]
            assert (tokens[index, length:] == model.end_marker).all()
            assert is_whole_chunk(token_grammar, ids.tolist())
            logits = model.teacher_forced_logits(alone(observation, index), grammar, ids[None])[0]
            state, missing = 0, TOTAL
            for token, row in zip(ids.tolist(), logits, strict=False):
                allowed = torch.from_numpy(token_grammar.allowed[state, missing])
                assert token == row[:-1].masked_fill(~allowed, -torch.inf).argmax()
                missing -= token_grammar.counts[state, token]
                state = token_grammar.next_states[state, token]

    def test_a_batch_is_its_samples_though_they_end_at_different_lengths(self, model, observation, grammar):
        tokens, lengths = model.generate(observation, grammar)
        assert len(set(lengths.tolist())) > 1
        for index in range(3):
            single, length = model.generate(alone(observation, index), grammar)
            assert torch.equal(single[0], tokens[index])
            assert length[0] == lengths[index]

    def test_a_seed_draws_the_same_again(self, model, observation, grammar):
        def draw(seed, temperature=1.0):
            generator = torch.Generator().manual_seed(seed)
            return model.generate(observation, grammar, temperature=temperature, generator=generator)[0]

        assert torch.equal(draw(0), draw(0))
        assert not torch.equal(draw(0), draw(1))
        assert torch.equal(draw(0, temperature=1e-6), model.generate(observation, grammar)[0])

    def test_draws_follow_the_soft_max(self):
        logits = torch.tensor([0.0, 1.0, -1.0, 0.5])
        drawn = _perturb(logits.expand(40_000, -1), 0.7, torch.Generator().manual_seed(0)).argmax(dim=1)
        frequencies = drawn.bincount(minlength=4) / len(drawn)
        torch.testing.assert_close(frequencies, (logits / 0.7).softmax(dim=0), rtol=0, atol=0.01)

    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_an_untrained_model_decodes_whole_chunks_only(self, temperature, model, token_grammar, grammar):
        generator = torch.Generator().manual_seed(3)
        options = {"temperature": temperature, "generator": generator}
        tokens, lengths = model.generate(many_observations(500, generator), grammar, **options)
        assert all(
            is_whole_chunk(token_grammar, ids[:length].tolist()) for ids, length in zip(tokens, lengths, strict=True)
        )

    def test_compiles_in_one_piece_and_once(self, model, observation, grammar):
        graphs = []

        def count(graph, _):
            graphs.append(graph)
            return graph.forward

        expected = model.generate(observation, grammar)[0]
        torch._dynamo.reset()
        model.decode_one_token = torch.compile(model.decode_one_token, fullgraph=True, backend=count)
        for _ in range(2):
            assert torch.equal(model.generate(observation, grammar)[0], expected)
        assert len(graphs) == 1

    def test_room_too_short_for_a_chunk_is_an_error_that_names_the_ids(self, observation, grammar):
        with pytest.raises(ValueError, match=r"not complete after 3 tokens.*Ids of the first: \[\d+, \d+, \d+\]"):
            make_model(max_tokens=3).generate(observation, grammar)

    @pytest.mark.parametrize("weight", [torch.nan, torch.inf])
    def test_damaged_weights_decode_nothing(self, weight, model, observation, grammar):
        with torch.no_grad():
            model.action_head.weight[3, 0] = weight
        with pytest.raises(ValueError, match=r"chunks \[0, 1, 2\] of 3 are not finite.*Ids of the first: \[\d+"):
            model.generate(observation, grammar)

    def test_another_tokenizer_is_refused(self, model, observation, grammar):
        other = DecodingGrammar(np.ones((1, 2, 5), dtype=bool), np.ones((1, 5)), np.zeros((1, 5)))
        with pytest.raises(ValueError, match="the model has 24 action ids, the grammar 5"):
            model.generate(observation, other)
