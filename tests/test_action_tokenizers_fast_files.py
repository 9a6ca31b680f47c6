"""FAST tokenizers on disk: ours, the published layout, and what is neither."""

import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from fast_processor import UniversalActionProcessor
from fast_reference import ReferenceFast, smooth_chunks

from lerobot_vla_plugin.action_tokenizers import FastTokenizer, load_action_tokenizer

CHUNKS = smooth_chunks(100, 10, 3)
FILES = ("action_tokenizer.json", "processor_config.json", "tokenizer.json")
TWICE = {"type": "TemplateProcessing", "single": 2 * [{"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {}}
INNER_FILE = "bpe_tokenizer/tokenizer.json"


@pytest.fixture
def own(tmp_path) -> Path:
    FastTokenizer.fit(CHUNKS, vocab_size=300).save(tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture
def published(tmp_path) -> Path:
    return ReferenceFast.fit(CHUNKS, vocab_size=300).save(tmp_path / "published")


@pytest.fixture
def by_transformers(tmp_path) -> Path:
    """A published tokenizer as LeRobot's command writes it with transformers 5: the vocabulary in a folder inside."""
    reference = ReferenceFast.fit(CHUNKS, vocab_size=300)
    processor = UniversalActionProcessor(reference.bpe, 10, 300, reference.min_token, action_dim=3, time_horizon=10)
    processor.save_pretrained(tmp_path / "by transformers")
    return tmp_path / "by transformers"


def change(path: Path, **changes) -> None:
    """Change a JSON file, a name like `model.vocab` inside an inner object; None removes a field."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        *outer, last = name.split(".")
        inner = content
        for key in outer:
            inner = inner[key]
        inner[last] = value
        if value is None:
            del inner[last]
    path.write_text(json.dumps(content))


def test_loaded_is_saved(own, tmp_path) -> None:
    fitted, loaded = FastTokenizer.fit(CHUNKS, vocab_size=300), FastTokenizer.load(own)
    for name in ("scale", "min_token", "max_token", "chunk_size", "action_dim", "vocab_size"):
        assert getattr(loaded, name) == getattr(fitted, name)
    ids = fitted.encode(3 * CHUNKS)
    assert loaded.encode(3 * CHUNKS) == ids
    np.testing.assert_array_equal(loaded.decode(ids, 10, 3), fitted.decode(ids, 10, 3))
    loaded.save(tmp_path / "again")
    for name in (*FILES, INNER_FILE):
        assert (tmp_path / "again" / name).read_bytes() == (own / name).read_bytes()


def test_what_transformers_saves_is_read(by_transformers) -> None:
    assert not (by_transformers / "tokenizer.json").exists()
    tokenizer = load_action_tokenizer(by_transformers)
    assert tokenizer.encode(CHUNKS) == UniversalActionProcessor.from_pretrained(by_transformers).encode(CHUNKS)
    assert (by_transformers / INNER_FILE).is_file()


def test_what_we_save_is_read_by_transformers_and_survives_its_saving(own) -> None:
    tokenizer = FastTokenizer.load(own)
    processor = UniversalActionProcessor.from_pretrained(own)
    assert (processor.scale, processor.min_token) == (tokenizer.scale, tokenizer.min_token)
    assert processor.encode(CHUNKS) == tokenizer.encode(CHUNKS)
    before = (own / INNER_FILE).read_bytes()
    processor.save_pretrained(own)
    assert (own / INNER_FILE).read_bytes() != before
    assert FastTokenizer.load(own).encode(CHUNKS) == tokenizer.encode(CHUNKS)


def test_two_vocabularies_in_a_folder_must_be_the_same(own, by_transformers) -> None:
    (own / INNER_FILE).unlink()
    FastTokenizer.load(own)
    shutil.copy(by_transformers / INNER_FILE, own / INNER_FILE)
    with pytest.raises(
        ValueError, match=r"own.tokenizer\.json and .*bpe_tokenizer.tokenizer\.json are different .*delete"
    ):
        FastTokenizer.load(own)
    (own / INNER_FILE).write_text("{")
    with pytest.raises(ValueError, match=r"bpe_tokenizer.tokenizer\.json is no JSON"):
        FastTokenizer.load(own)


def test_a_published_tokenizer_survives_saving(published, tmp_path) -> None:
    original = FastTokenizer.from_published(published)
    original.save(tmp_path / "saved")
    loaded = load_action_tokenizer(tmp_path / "saved")
    assert isinstance(loaded, FastTokenizer)
    assert loaded.max_token == original.max_token
    assert loaded.chunk_size is None
    assert loaded.encode(5 * CHUNKS) == original.encode(5 * CHUNKS)


def test_kind_is_found_in_the_folder(own, published, tmp_path) -> None:
    ids = FastTokenizer.load(own).encode(CHUNKS)
    assert load_action_tokenizer(own).encode(CHUNKS) == ids
    assert load_action_tokenizer(published).encode(CHUNKS) == ReferenceFast.load(published).encode(CHUNKS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="lerobot-vla tokenizer fit"):
        load_action_tokenizer(tmp_path / "empty")
    change(own / "action_tokenizer.json", kind="gzip")
    with pytest.raises(
        ValueError, match=r"action_tokenizer\.json: .*no action tokenizer 'gzip'; there are fast, bins, vq"
    ):
        load_action_tokenizer(own)


def test_a_hub_name_is_looked_up_in_the_hub_cache(published, tmp_path, monkeypatch) -> None:
    """The layout that huggingface_hub keeps, filled by hand; no network is touched."""
    cached = tmp_path / "hub" / "models--physical-intelligence--fast"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots").mkdir()
    published.rename(cached / "snapshots" / ("0" * 40))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert FastTokenizer.from_published("physical-intelligence/fast").min_token < 0
    with pytest.raises(ValueError, match="got 'nobody/nothing'"):
        FastTokenizer.from_published("nobody/nothing")
    with pytest.raises(ValueError, match="expected a folder with"):
        FastTokenizer.from_published(tmp_path / "no folder")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_shortened_file_is_named(own, name: str) -> None:
    path = own / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=f"{name} is no JSON .*cut short"):
        FastTokenizer.load(own)
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match=f"{name}: expected a JSON object, got list"):
        FastTokenizer.load(own)
    path.unlink()
    (own / INNER_FILE).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        FastTokenizer.load(own)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("action_tokenizer.json", {"kind": "bins"}, "expected kind 'fast', got 'bins'"),
        (
            "action_tokenizer.json",
            {"version": 2},
            "expected version 1, got 2; fit it anew with `lerobot-vla tokenizer fit`",
        ),
        ("action_tokenizer.json", {"codes": 64}, r"unknown \['codes'\]"),
        ("action_tokenizer.json", {"max_token": None}, r"missing \['max_token'\]"),
        ("action_tokenizer.json", {"max_token": "71"}, "max_token to be int, got '71'"),
        ("action_tokenizer.json", {"max_token": -4000}, "0 among them, got -[0-9]+..-4000; copy both"),
        ("action_tokenizer.json", {"max_token": 10**6}, "values of a coefficient, .*copy both from one tokenizer"),
        ("processor_config.json", {"low_scale": 10}, r"unknown \['low_scale'\]"),
        ("processor_config.json", {"scale": None}, r"missing \['scale'\]"),
        ("processor_config.json", {"scale": -1}, "positive scale"),
        ("processor_config.json", {"scale": float("inf")}, "positive scale"),
        ("processor_config.json", {"scale": 10**400}, "scale within float32"),
        ("processor_config.json", {"scale": 1e-300}, "scale within float32"),
        ("processor_config.json", {"min_token": 0.5}, "whole numbers"),
        ("processor_config.json", {"min_token": 10}, "min_token not above 0"),
        ("processor_config.json", {"min_token": -(10**6)}, "do not belong together"),
        ("processor_config.json", {"vocab_size": 299}, "vocab_size 299, but tokenizer.json has [0-9]+ tokens"),
        ("processor_config.json", {"vocab_size": 1024}, "vocab_size 1024, but tokenizer.json has [0-9]+ tokens"),
        ("processor_config.json", {"time_horizon": 0}, "sizes above 0"),
        ("processor_config.json", {"processor_class": "SmolVLMProcessor"}, "SmolVLMProcessor"),
        ("tokenizer.json", {"model.type": "WordPiece"}, "model.type 'WordPiece' instead of 'BPE'"),
        ("tokenizer.json", {"model.unk_token": "?"}, "unk_token"),
        ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}, "normalizer"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer 'Whitespace'"),
        ("tokenizer.json", {"pre_tokenizer.add_prefix_space": True}, "add_prefix_space True"),
        ("tokenizer.json", {"post_processor": TWICE}, "post_processor 'TemplateProcessing' instead of"),
        ("tokenizer.json", {"added_tokens": [{"id": 0, "content": "<pad>"}]}, "added_tokens"),
        ("tokenizer.json", {"model.vocab": {"a": 0, "b": 2}}, "each of the ids"),
        ("tokenizer.json", {"model.vocab": {"a": [0]}}, "each of the ids"),
        ("tokenizer.json", {"model.merges": [["never", "seen"]]}, "cannot be read"),
        ("tokenizer.json", {"model": "BPE"}, "model.type None instead of 'BPE'"),
    ],
)
def test_foreign_content_is_named(own, name: str, changes: dict, message: str) -> None:
    change(own / name, **changes)
    with pytest.raises(ValueError, match=message) as refusal:
        FastTokenizer.load(own)
    assert name in str(refusal.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("text", ['{"a":' * 10**5 + "1" + "}" * 10**5, '{"version": 1' + 5000 * "0" + "}"])
def test_json_that_python_does_not_take_is_named(own, name: str, text: str) -> None:
    (own / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name} is no JSON"):
        FastTokenizer.load(own)


def test_vocab_size_of_a_published_tokenizer_is_what_fitting_aimed_at(tmp_path) -> None:
    """Fewer ids where the chunks repeat too little, and more by the symbols of its characters' bytes."""
    aim = 500
    reference = ReferenceFast.fit(CHUNKS, scale=90, vocab_size=aim)
    ids = len(reference.bpe)
    assert ids > aim
    for vocab_size in (aim, ids + 1000):
        assert FastTokenizer.from_published(reference.save(tmp_path, vocab_size=vocab_size)).vocab_size == ids
    with pytest.raises(ValueError, match=f"vocab_size {ids - 258}, but tokenizer.json has {ids} tokens"):
        FastTokenizer.from_published(reference.save(tmp_path, vocab_size=ids - 258))


def test_a_vocabulary_without_bytes_is_refused(published) -> None:
    change(published / "tokenizer.json", **{"model.vocab": {"ab": 0}, "model.merges": []})
    with pytest.raises(ValueError, match=r"tokenizer\.json do not belong together: .*no single bytes"):
        FastTokenizer.from_published(published)
