"""VQ codes: what the grammar allows decodes, what is encoded obeys it, and the fit is repeatable and uses its codes."""

import json
import logging

import numpy as np
import pytest
import torch
from fast_reference import smooth_chunks
from grammar_walk import assert_obeys
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lerobot_vla_plugin.action_tokenizers import MalformedTokensError, VQTokenizer, load_action_tokenizer
from lerobot_vla_plugin.action_tokenizers.vq_network import PathVQVAE, nearest_codes
from lerobot_vla_plugin.action_tokenizers.vq_training import fit_network, revive_codes

CHUNK, JOINTS, CODES, LEVELS = 20, 3, 32, 3
CHUNKS = smooth_chunks(200, CHUNK, JOINTS)
UNSEEN = smooth_chunks(100, CHUNK, JOINTS, seed=1)


def fit(steps: int = 60, **options) -> VQTokenizer:
    return VQTokenizer.fit(CHUNKS, codes=CODES, levels=LEVELS, steps=steps, **options)


@pytest.fixture(scope="module")
def tokenizer() -> VQTokenizer:
    return fit()


@pytest.fixture
def folder(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    return tmp_path


def error(tokenizer: VQTokenizer, chunks: np.ndarray = UNSEEN) -> float:
    """Mean squared error of what comes back."""
    return float(np.square(tokenizer.decode(tokenizer.encode(chunks), *chunks.shape[1:]) - chunks).mean())


def test_motion_comes_back(tokenizer):
    """Each level leaves less, and what was fitted to some chunks serves others."""
    variance = UNSEEN.var()
    assert error(tokenizer) < 0.01 * variance
    assert error(tokenizer) < 2 * error(tokenizer, CHUNKS)
    assert error(VQTokenizer.fit(CHUNKS, codes=CODES, levels=1, steps=60)) > 5 * error(tokenizer)


def test_gradient_descent_betters_what_kmeans_began():
    """On paths that jump, which principal components suit least."""
    rng = np.random.default_rng(0)
    jumps = np.sign(np.arange(CHUNK)[:, None] + 0.5 - rng.integers(0, CHUNK, (300, 1, 2)))
    chunks = jumps * rng.choice([-0.5, 0.5], (300, 1, 2))
    begun, descended = (VQTokenizer.fit(chunks, codes=16, levels=2, steps=steps) for steps in (1, 400))
    assert error(descended, chunks) < 0.9 * error(begun, chunks)


def test_loss_moves_encoder_codes_and_decoder(tokenizer):
    network = PathVQVAE(CHUNK, CODES, LEVELS)
    weights = {name: tensor.clone() for name, tensor in tokenizer._network.state_dict().items()}
    network.load_state_dict(weights, assign=True)
    network.requires_grad_(True)
    loss, *_ = network.loss(torch.from_numpy(UNSEEN[:, :, 0]).float())
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0, name


@given(data=st.data())
def test_whatever_the_grammar_allows_decodes(tokenizer, data):
    grammar = tokenizer.grammar(CHUNK, JOINTS)
    assert grammar.longest == grammar.total == JOINTS * LEVELS
    state, missing, ids = 0, grammar.total, []
    while missing:
        allowed = np.flatnonzero(grammar.allowed[state, missing])
        ids.append(data.draw(st.sampled_from(allowed.tolist())))
        missing -= grammar.counts[state, ids[-1]]
        state = grammar.next_states[state, ids[-1]]
    assert state == 0
    decoded = tokenizer.decode([ids], CHUNK, JOINTS)
    assert decoded.shape == (1, CHUNK, JOINTS)
    assert decoded.dtype == np.float64
    assert np.isfinite(decoded).all()


@given(arrays(np.float64, (2, CHUNK, JOINTS), elements=st.floats(-1e30, 1e30)))
def test_whatever_is_encoded_obeys_the_grammar(tokenizer, chunks):
    grammar = tokenizer.grammar(CHUNK, JOINTS)
    for ids in tokenizer.encode(chunks):
        assert_obeys(grammar, ids)
    assert np.isfinite(tokenizer.decode(tokenizer.encode(chunks), CHUNK, JOINTS)).all()


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), levels=st.integers(1, 3), codes=st.integers(2, 9))
def test_a_wide_enough_beam_finds_the_nearest_sum(seed, levels, codes):
    generator = torch.Generator().manual_seed(seed)
    latents, codebooks = torch.randn(5, 4, generator=generator), torch.randn(levels, codes, 4, generator=generator)
    found = nearest_codes(latents, codebooks, beam_width=codes**levels)
    greedy = nearest_codes(latents, codebooks, beam_width=1)
    all_codes = torch.cartesian_prod(*[torch.arange(codes)] * levels).reshape(-1, levels)

    def distance(chosen: torch.Tensor) -> torch.Tensor:
        return (latents - codebooks[torch.arange(levels), chosen].sum(dim=1)).square().sum(dim=1)

    nearest = torch.stack([distance(chosen.expand(5, -1)) for chosen in all_codes]).amin(dim=0)
    torch.testing.assert_close(distance(found), nearest, rtol=1e-4, atol=1e-4)
    assert (distance(greedy) >= nearest - 1e-4).all()


def test_codes_that_nothing_chose_are_moved_to_where_something_is(tokenizer):
    network = PathVQVAE(CHUNK, CODES, LEVELS).to_empty(device="cpu")
    before = torch.full_like(network.codebooks, 1e6)
    with torch.no_grad():
        network.codebooks.copy_(before)
    chosen = torch.ones(LEVELS, CODES, dtype=torch.bool)
    chosen[1, [3, 7]] = False
    left = torch.randn(50, LEVELS, network.codebooks.shape[2])
    revive_codes(network, chosen, left, torch.Generator().manual_seed(0))
    moved = (network.codebooks != before).any(dim=2)
    assert moved.nonzero().tolist() == [[1, 3], [1, 7]]
    for code in (3, 7):
        assert (network.codebooks[1, code] == left[:, 1]).all(dim=1).any()


def test_usage_is_that_of_the_fitted_chunks(tokenizer, caplog):
    codes = np.array(tokenizer.encode(CHUNKS)).reshape(-1, LEVELS) - CODES * np.arange(LEVELS)
    assert len(tokenizer.code_usage) == LEVELS
    for level, usage in enumerate(tokenizer.code_usage):
        assert usage.share == len(np.unique(codes[:, level])) / CODES
        assert usage.share > 0.9, "codes have collapsed"
        assert 0.5 * CODES < usage.perplexity <= CODES
    with caplog.at_level(logging.INFO):
        fit(steps=1)
    assert f"VQ level {LEVELS - 1} uses " in caplog.text


def test_the_same_chunks_give_the_same_codes_and_no_global_is_touched(tokenizer):
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    with torch.no_grad():
        again = fit()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert not torch.is_inference_mode_enabled()
    for name, weights in tokenizer._network.state_dict().items():
        assert torch.equal(again._network.state_dict()[name], weights), name
    assert again.code_usage == tokenizer.code_usage


def test_the_number_of_threads_changes_nothing():
    threads = torch.get_num_threads()
    weights = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            weights.append(fit(steps=1)._network.state_dict())
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_declared_constant_joint_stays_almost_put():
    chunks = CHUNKS.copy()
    chunks[:, :, 1] = 0
    with pytest.raises(ValueError, match=r"joints \[1\] of 3 never move"):
        VQTokenizer.fit(chunks)
    fitted = VQTokenizer.fit(chunks, codes=CODES, levels=LEVELS, steps=20, constant_joints=[1])
    assert np.abs(fitted.decode(fitted.encode(chunks), CHUNK, JOINTS)[:, :, 1]).max() < 0.1


@pytest.mark.parametrize("shape", [(10, 1, 1), (10, 2, 7), (12, 130, 2)])
def test_any_chunk_can_be_fitted(shape):
    chunks = np.random.default_rng(0).uniform(-1, 1, shape)
    fitted = VQTokenizer.fit(chunks, codes=4, levels=2, steps=2)
    ids = fitted.encode(chunks)
    assert {len(sequence) for sequence in ids} == {2 * shape[2]}
    assert fitted.decode(ids, *shape[1:]).shape == shape


def test_no_chunks_are_no_tokens(tokenizer):
    assert tokenizer.encode(CHUNKS[:0]) == []
    assert tokenizer.decode([], CHUNK, JOINTS).shape == (0, CHUNK, JOINTS)


@pytest.mark.parametrize(
    ("place", "token", "message"),
    [
        (4, CODES * LEVELS, r"first is 96 at place 4 of sequence 0: expected 32..63, got \[0, 32, 64, 0, 96, 64"),
        (4, CODES - 1, "first is 31 at place 4 of sequence 0: expected 32..63"),
        (0, -1, "first is -1 at place 0 of sequence 0: expected 0..31"),
    ],
)
def test_ids_of_no_level_or_another_one_are_named(tokenizer, place, token, message):
    ids = [0, 32, 64] * JOINTS
    tokenizer.decode([ids], CHUNK, JOINTS)
    ids[place] = token
    with pytest.raises(MalformedTokensError, match=message):
        tokenizer.decode([ids], CHUNK, JOINTS)


def test_a_sequence_of_another_length_is_named(tokenizer):
    with pytest.raises(MalformedTokensError, match="expected 9 action tokens, got 8 in sequence 0"):
        tokenizer.decode([([0, 32, 64] * JOINTS)[:-1]], CHUNK, JOINTS)


def test_another_chunk_than_fitted_is_refused(tokenizer):
    for shape in ((CHUNK, JOINTS + 1), (CHUNK - 1, JOINTS)):
        with pytest.raises(ValueError, match=rf"expected chunks of shape \(n, {CHUNK}, {JOINTS}\)"):
            tokenizer.encode(np.zeros((1, *shape)))
        for call in (lambda shape=shape: tokenizer.decode([], *shape), lambda shape=shape: tokenizer.grammar(*shape)):
            with pytest.raises(ValueError, match=f"fitted to chunks of {CHUNK} steps and {JOINTS} joints"):
                call()
    with pytest.raises(ValueError, match="not finite"):
        tokenizer.encode(np.full((1, CHUNK, JOINTS), np.nan))


@pytest.mark.parametrize("options", [{"codes": 1}, {"levels": 0}, {"steps": 0}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match="at least 2 codes, 1 level and 1 step"):
        VQTokenizer.fit(CHUNKS, **options)


def test_progress_is_shown_where_asked(capfd):
    fit(steps=1)
    assert "fitting VQ" not in capfd.readouterr().err
    fit(steps=1, show_progress=True)
    assert "fitting VQ" in capfd.readouterr().err


def test_loaded_is_saved(tokenizer, folder):
    random_state = torch.get_rng_state()
    loaded = load_action_tokenizer(folder)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert isinstance(loaded, VQTokenizer)
    assert (loaded.codes, loaded.levels, loaded.vocab_size) == (CODES, LEVELS, CODES * LEVELS)
    assert loaded.code_usage == tokenizer.code_usage
    ids = tokenizer.encode(UNSEEN)
    assert loaded.encode(UNSEEN) == ids
    np.testing.assert_array_equal(loaded.decode(ids, CHUNK, JOINTS), tokenizer.decode(ids, CHUNK, JOINTS))
    assert sorted(path.name for path in folder.iterdir()) == ["action_tokenizer.json", "vq.safetensors"]


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_weights_cut_short_are_refused(folder, kept):
    path = folder / "vq.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="cut short"):
        VQTokenizer.load(folder)


def test_missing_or_broken_weights_are_refused(folder, tokenizer):
    path = folder / "vq.safetensors"
    tokenizer_of_others = VQTokenizer(fit_network(torch.randn(20, CHUNK), 4, LEVELS, 1, False), CHUNK, JOINTS)
    tokenizer_of_others.save(folder / "other")
    path.write_bytes((folder / "other" / "vq.safetensors").read_bytes())
    with pytest.raises(ValueError, match="codebooks"):
        VQTokenizer.load(folder)
    tokenizer_of_others._network.codebooks[0, 0, 0] = torch.nan
    tokenizer_of_others.save(folder / "other")
    with pytest.raises(ValueError, match="finite"):
        VQTokenizer.load(folder / "other")
    path.unlink()
    with pytest.raises(ValueError, match=r"vq\.safetensors"):
        VQTokenizer.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": 8}, "codebooks"),
        ({"codes": 10**9}, "codebooks"),
        ({"levels": -1}, "no VQ tokenizer.*sizes of at least 1"),
        ({"action_dim": -3}, "sizes of at least 1"),
        ({"chunk_size": 10**400}, "no VQ tokenizer"),
        ({"chunk_size": 50}, "size mismatch"),
        ({"code_usage": [{"share": 1.0}]}, "no VQ tokenizer"),
        ({"code_usage": [{"share": 1.0, "perplexity": "9"}] * LEVELS}, "numbers of at least 0 in code_usage"),
        ({"code_usage": [{"share": 1.0, "perplexity": 9.0}] * 2}, f"code_usage of {LEVELS} levels, got 2"),
        ({"kind": "fast"}, "expected kind 'vq'"),
        ({"scale": 10}, "unknown"),
    ],
)
def test_foreign_fields_are_refused(folder, changes, message):
    path = folder / "action_tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        VQTokenizer.load(folder)
