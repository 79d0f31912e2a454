"""What decides embeddings is the identity: every byte of the weights, the processor, the vocabulary, the template; and nothing else."""

from __future__ import annotations

import copy
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import GotOcr2ImageProcessor

from slq.adapters.latents import LatentQueries
from slq.encoders.latent import LatentEncoder
from slq.errors import FingerprintMismatchError
from slq.models import FrozenModel, load_model
from slq.models.families import family_of
from slq.models.identity import (
    REMEMBERED_BYTES,
    TEMPLATE_DAY,
    code_sha256,
    config_sha256,
    digests_file,
    earlier_revision,
    earlier_template,
    file_sha256,
    processor_settings,
    template_sha256,
    undated_template,
    weight_files,
    weights_sha256,
)
from slq.types import Item


@pytest.fixture
def folder(model, tmp_path) -> Path:
    """A copy of the miniature that may be changed."""
    return Path(shutil.copytree(Path(model.processor.tokenizer.name_or_path), tmp_path / "copy"))


@pytest.fixture
def adapter(model, tmp_path) -> Path:
    LatentEncoder(model, LatentQueries(4, model.dim)).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def change_json(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def refused(adapter: Path, folder: Path) -> str:
    with pytest.raises(FingerprintMismatchError) as caught:
        LatentEncoder.from_pretrained(adapter, load_model(str(folder), device="cpu"))
    return str(caught.value)


def test_a_copy_under_another_name_is_the_same_model(model, adapter, folder):
    change_json(folder / "config.json", lambda config: config.update(transformers_version="9", _name_or_path="elsewhere"))
    copy = LatentEncoder.from_pretrained(adapter, load_model(str(folder), device="cpu"))
    assert copy.model.identity.name != model.identity.name and copy.model.identity.content() == model.identity.content()
    assert copy.fingerprint == LatentEncoder.from_pretrained(adapter, model).fingerprint
    assert copy.model.fingerprint == model.fingerprint


def test_a_byte_in_the_middle_of_the_weights(adapter, folder):
    weights = bytearray((folder / "model.safetensors").read_bytes())
    assert len(weights) > 3 << 20, "the ends alone would have been read before"
    weights[len(weights) // 2] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert "weights_sha256" in refused(adapter, folder)


def test_a_setting_of_the_model(adapter, folder):
    change_json(folder / "config.json", lambda config: config["text_config"].update(rms_norm_eps=1e-3))
    assert "config_sha256" in refused(adapter, folder)


@pytest.mark.parametrize(("name", "value"), [("image_mean", [0.4, 0.5, 0.5]), ("image_std", [1, 1, 1]), ("do_normalize", False)])
def test_a_setting_of_the_processor(adapter, folder, name, value):
    def change(content: dict) -> None:
        settings = content.get("image_processor", content)
        assert settings[name] != value
        settings[name] = value

    where = next(path for path in (folder / "processor_config.json", folder / "preprocessor_config.json") if name in path.read_text())
    change_json(where, change)
    assert f"processor {name}" in refused(adapter, folder)


def test_two_tokens_that_changed_places(adapter, folder):
    def swap(content: dict) -> None:
        vocabulary = content["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]

    change_json(folder / "tokenizer.json", swap)
    assert "tokenizer_sha256" in refused(adapter, folder)


def test_a_token_that_the_template_asks_for_by_name(adapter, folder):
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8") + "{{ eos_token }}", encoding="utf-8")
    named = load_model(str(folder), device="cpu")
    assert named.identity.template_tokens == {"eos_token": named.processor.tokenizer.eos_token}
    LatentEncoder(named, LatentQueries(4, named.dim)).save_pretrained(adapter, overwrite=True)
    change_json(folder / "tokenizer_config.json", lambda content: content.update(eos_token="<|im_start|>"))
    assert refused(adapter, folder)
    assert load_model(str(folder), device="cpu").identity.template_tokens == {"eos_token": "<|im_start|>"}


def test_a_tokenizer_that_splits_control_tokens(adapter, folder):
    change_json(folder / "tokenizer_config.json", lambda content: content.update(split_special_tokens=True))
    assert "tokenizer_sha256" in refused(adapter, folder)


def test_the_library_that_resizes_images(model):
    pytest.importorskip("torchvision")
    assert model.identity.processor["backend"] == "pil"
    other = copy.copy(model.processor)
    other.image_processor = GotOcr2ImageProcessor(size=model.processor.image_processor.size)
    assert processor_settings(other)["backend"] == "torchvision"


def test_code_that_comes_with_the_weights(folder):
    foreign = type("Foreign", (), {"__module__": "transformers_modules.copy.modeling"})()
    (folder / "modeling.py").write_text("scale = 1\n")
    before = code_sha256(folder, foreign, object())
    (folder / "modeling.py").write_text("scale = 2\n")
    assert None is not before != code_sha256(folder, foreign, object())
    assert code_sha256(folder, object()) is None, "files that nothing runs change nothing"


def test_quantised_weights_give_other_embeddings_and_other_dtypes_do_not(model):
    half, quarter = load_model(device="cpu", dtype="bfloat16"), load_model(device="cpu")
    quarter.quantization = "4bit"
    assert half.content == model.content != quarter.content
    assert len({model.fingerprint, half.fingerprint, quarter.fingerprint}) == 3, "keys and values differ in all of them"
    assert load_model(device="cpu", attn_implementation="eager").fingerprint != model.fingerprint


def test_of_several_templates_the_one_that_is_used_counts(model):
    other = copy.copy(model.processor)
    other.chat_template = {"default": model.processor.chat_template, "tools": "{{ strftime_now('%Y') }}"}
    assert template_sha256(other) == template_sha256(model.processor) and undated_template(other) == {}


def test_a_tokenizer_that_was_used_is_the_same(model):
    again = load_model(device="cpu")
    again.prepare([Item("a cat"), Item("a cat on a mat")])
    again.processor.tokenizer("a cat", truncation=True, max_length=4, padding="max_length")
    copy = FrozenModel(again.model, again.processor, family_of("internvl"), "again")
    assert copy.identity.tokenizer_sha256 == model.identity.tokenizer_sha256


def test_a_template_that_prints_the_date_is_the_same_every_day(model, adapter, folder):
    template = folder / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %b %Y') }} " + template.read_text(encoding="utf-8"), encoding="utf-8")
    dated = load_model(str(folder), device="cpu")
    text = dated.processor.tokenizer.decode(dated.prepare([Item("a cat")]).inputs["input_ids"][0])
    assert TEMPLATE_DAY.strftime("%d%b%Y").lower() in text.replace(" ", "") and "a cat" in text
    assert "template" not in dated.identity.earlier, "what earlier versions stated of it was true for one day"
    LatentEncoder(dated, LatentQueries(4, dated.dim)).save_pretrained(adapter, overwrite=True)
    assert LatentEncoder.from_pretrained(adapter, load_model(str(folder), device="cpu")).model.identity == dated.identity
    assert "chat_template_sha256" in refused(adapter, Path(model.processor.tokenizer.name_or_path))


# Files


def shards(folder: Path, parts: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in parts.items():
        (folder / name).write_bytes(content)
    return folder


def test_the_files_that_are_read_count_and_no_others(tmp_path):
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}).encode()
    parts = {"model-1.safetensors": b"one", "model-2.safetensors": b"two", "model.safetensors.index.json": index}
    both = shards(tmp_path / "both", {**parts, "consolidated.safetensors": b"x", "pytorch_model.bin": b"y"})
    assert [path.name for path in weight_files(both)] == ["model-1.safetensors", "model-2.safetensors"]
    assert weights_sha256(both) == weights_sha256(shards(tmp_path / "alone", parts))
    assert weights_sha256(both) != weights_sha256(shards(tmp_path / "other", {**parts, "model-2.safetensors": b"twO"}))
    old = shards(tmp_path / "old", {"pytorch_model.bin": b"one", "training_args.bin": b"z"})
    assert [path.name for path in weight_files(old)] == ["pytorch_model.bin"]
    assert weights_sha256(shards(tmp_path / "none", {"notes.txt": b"x"})) is None and config_sha256(tmp_path / "none") is None


def test_a_byte_in_the_middle_of_a_big_shard_is_seen_and_an_unchanged_one_is_not_read_again(tmp_path, own_cache):
    shard, long_ago = tmp_path / "model.safetensors", 1_700_000_000
    with shard.open("wb") as file:
        file.truncate(REMEMBERED_BYTES)
    os.utime(shard, (long_ago, long_ago))
    first = file_sha256(shard)
    assert json.loads(digests_file().read_text())[str(shard.resolve())][-1] == first
    remembered = digests_file().read_text().replace(first, "remembered")
    digests_file().write_text(remembered)
    assert file_sha256(shard) == "remembered"
    with shard.open("r+b") as file:
        file.seek(REMEMBERED_BYTES // 2)
        file.write(b"x")
    assert file_sha256(shard) not in (first, "remembered")
    assert json.loads(digests_file().read_text())[str(shard.resolve())][-1] == "remembered", "it changed just now, and may again"
    digests_file().write_text("not JSON")
    os.utime(shard, (long_ago, long_ago + 1))
    assert file_sha256(shard) == json.loads(digests_file().read_text())[str(shard.resolve())][-1]


def test_digests_that_cannot_be_read_just_now_are_not_lost(tmp_path, own_cache, monkeypatch):
    shard = tmp_path / "model.safetensors"
    with shard.open("wb") as file:
        file.truncate(REMEMBERED_BYTES)
    os.utime(shard, (1_700_000_000, 1_700_000_000))
    digests_file().parent.mkdir(parents=True, exist_ok=True)
    digests_file().write_text('{"another": [1, 2, 3, "digest"]}')
    read = Path.read_text

    def refuse(path: Path, *given: object, **options: object) -> str:
        if path == digests_file():
            raise OSError(errno.EMFILE, "Too many open files")
        return read(path, *given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refuse)
        first = file_sha256(shard)
    assert json.loads(digests_file().read_text()) == {"another": [1, 2, 3, "digest"]}
    assert file_sha256(shard) == first and set(json.loads(digests_file().read_text())) == {"another", str(shard.resolve())}


def test_what_the_hub_names_by_its_hash_is_not_read(tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / ("a" * 64)).write_bytes(b"any")
    (blobs / ("b" * 40)).write_bytes(b"kept in git")
    (tmp_path / "large").symlink_to(blobs / ("a" * 64))
    (tmp_path / "small").symlink_to(blobs / ("b" * 40))
    assert file_sha256(tmp_path / "large") == "a" * 64
    assert file_sha256(tmp_path / "small") == file_sha256(blobs / ("b" * 40)) != "b" * 40


def test_a_model_of_the_hub_and_a_copy_of_it_are_the_same(model, folder, own_cache):
    """Laid out as the hub's client lays it out: large files named by their hash, and linked to from a commit."""
    commit, repo = "c" * 40, own_cache / "hub" / "models--nobody--tiny"
    snapshot = Path(shutil.copytree(folder, repo / "snapshots" / commit))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    (repo / "blobs").mkdir()
    blob = repo / "blobs" / file_sha256(folder / "model.safetensors")
    (snapshot / "model.safetensors").rename(blob)
    (snapshot / "model.safetensors").symlink_to(blob)
    found = load_model("nobody/tiny", device="cpu")
    assert (found.identity.name, found.identity.revision) == ("nobody/tiny", commit)
    assert found.identity.content() == model.identity.content() and found.identity.weights_sha256 is not None


# What earlier versions saved


def stated_before(model, folder: Path, **changes: object) -> dict:
    """The identity of a folder as adapters of formats 2 and 3 state it."""
    settings = dict(model.preprocessing.to_dict())
    settings["pictures"] = model.identity.preprocessing["image_kwargs"]
    found = {"name": "miniature", "revision": earlier_revision(folder), "template": earlier_template(model.processor)}
    return {**found, "preprocessing": settings, "dim": model.dim, "dtype": "float32", **changes}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, None),
        ({"name": "elsewhere", "dtype": "bfloat16"}, None),
        ({"revision": "another"}, "revision 'another'"),
        ({"template": "another"}, "template 'another'"),
        ({"dim": 7}, "dim 7"),
    ],
)
def test_adapters_of_earlier_formats_are_held_to_what_they_state(model, adapter, changes, named):
    folder = Path(model.processor.tokenizer.name_or_path)
    change_json(adapter / "slq_adapter.json", lambda content: content.update(base_model=stated_before(model, folder, **changes)))
    if named is None:
        assert LatentEncoder.from_pretrained(adapter, model).queries.num_latents == 4
    else:
        with pytest.raises(FingerprintMismatchError, match=named):
            LatentEncoder.from_pretrained(adapter, model)
