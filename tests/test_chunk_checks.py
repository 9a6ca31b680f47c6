"""What every tokenizer refuses to be given, said in the same words."""

import numpy as np
import pytest
from fast_reference import smooth_chunks

from lerobot_vla_plugin.action_tokenizers import TOKENIZER_KINDS, tokenizer_class
from lerobot_vla_plugin.action_tokenizers.chunk_checks import check_chunks, check_fit_chunks

CHUNKS = smooth_chunks(20, 10, 3)


def spoilt(value: float) -> np.ndarray:
    chunks = CHUNKS.copy()
    chunks[4, 7, 2] = value
    return chunks


def test_good_chunks_pass_as_float64():
    checked = check_fit_chunks(CHUNKS.astype(np.float32), [], fewest=20)
    assert checked.dtype == np.float64
    np.testing.assert_array_equal(check_chunks(checked, 10, 3), CHUNKS.astype(np.float32))


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        (CHUNKS[0], r"shape \(n, 10, 3\), got \(10, 3\)"),
        (CHUNKS[:, :9], r"shape \(n, 10, 3\), got \(20, 9, 3\)"),
        (CHUNKS[:, :, :2], r"got \(20, 10, 2\)"),
        (spoilt(np.nan), "1 action values are not finite, the first is nan in chunk 4, step 7, joint 2"),
        (spoilt(-np.inf), "the first is -inf"),
    ],
)
def test_bad_chunks_are_described(chunks, message):
    with pytest.raises(ValueError, match=message):
        check_chunks(chunks, 10, 3)


@pytest.mark.parametrize("shape", [(5, 0, 3), (5, 10, 0)])
def test_empty_chunks_are_refused(shape):
    with pytest.raises(ValueError, match="at least one step and one joint"):
        check_chunks(np.zeros(shape))


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
def test_every_tokenizer_refuses_what_it_cannot_be_fitted_to(kind):
    fit = tokenizer_class(kind).fit
    with pytest.raises(ValueError, match="not finite"):
        fit(spoilt(np.nan))
    with pytest.raises(ValueError, match=r"at least \d+ chunks to fit a tokenizer to, got 0"):
        fit(CHUNKS[:0])
    still = CHUNKS.copy()
    still[:, :, [0, 2]] = 0.25
    with pytest.raises(ValueError, match=r"joints \[2\] of 3 never move .* say constant_joints=\[2\]"):
        fit(still, constant_joints=[0])
