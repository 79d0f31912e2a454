"""The doctor: all is well on the miniature, and each thing that can be wrong with a backbone fails the check that is named for it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from slq.backbone import FrozenBackbone, KeptPrefix, Prepared, load_backbone
from slq.backbone.attention import SLQ_SDPA
from slq.backbone.families import family_of
from slq.doctor import Examination, Row, examine, with_fresh_queries
from slq.doctor.subject import built_in_items
from slq.errors import BackboneError
from slq.retriever import Retriever
from slq.runtime import parameter_hash

ALL = {
    "prefix split",
    "kept prefixes",
    "batch of one",
    "order in the batch",
    "mixed batch",
    "attention",
    "saved adapter",
    "generation",
    "weights",
    "other dtype",
}
BATCHES = {"batch of one", "order in the batch", "mixed batch"}


def miniature(dtype: str | None = None, kind: type[FrozenBackbone] = FrozenBackbone) -> FrozenBackbone:
    """The miniature in float32 unless asked otherwise, as a backbone of this class."""
    loaded = load_backbone(dtype=dtype, device="cpu")
    return kind(loaded.model, loaded.processor, family_of("internvl"), loaded.identity.name, loaded.identity.revision)


def run(load: Callable[[str | None], Retriever]) -> Examination:
    return examine(load, batch_size=1)


def by_result(examination: Examination) -> dict[str, set[str]]:
    """Names of the checks with each result; a check with one failed row has failed."""
    found: dict[str, set[str]] = {"ok": set(), "failed": set(), "skipped": set()}
    for row in examination.rows:
        found[row.result].add(row.check)
    return {**found, "ok": found["ok"] - found["failed"]}


def rows_of(examination: Examination, check: str) -> list[Row]:
    return [row for row in examination.rows if row.check == check]


# --- all is well ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def healthy() -> Examination:
    return run(lambda dtype: with_fresh_queries(miniature(dtype)))


def test_the_miniature_is_well(healthy):
    assert by_result(healthy) == {"ok": ALL, "failed": set(), "skipped": set()} and healthy.failed == ()
    assert all(row.what and 0 <= row.value <= row.tolerance and not row.note for row in healthy.rows)
    assert len(rows_of(healthy, "prefix split")) == len(rows_of(healthy, "weights")) == 2
    assert healthy.backbone == miniature().identity.to_dict()
    assert healthy.fingerprint == with_fresh_queries(miniature()).fingerprint


def test_figures(healthy):
    figures = healthy.figures
    assert figures["parameters"] == sum(each.numel() for each in miniature().model.parameters())
    assert (figures["device"], figures["dtype"], figures["attn_implementation"], figures["batch_size"]) == ("cpu", "float32", "sdpa", 1)
    assert len(figures["tokens_per_picture"]) == 3 and min(figures["tokens_per_picture"].values()) >= 36
    assert figures["closest_items"]["value"] > 100 * figures["closest_items"]["tolerance"]
    assert figures["peak_memory_bytes"] > 4 * figures["parameters"] and figures["load_seconds"] > 0
    assert figures["texts_per_second"] > 0 and figures["pictures_per_second"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_well(dtype):
    examination = run(lambda other: with_fresh_queries(miniature(other or dtype)))
    assert by_result(examination)["ok"] == ALL
    (row,) = rows_of(examination, "other dtype")
    assert f"{dtype} against float32" in row.what


def test_the_items_are_of_every_kind_and_repeat_themselves():
    items, again = built_in_items(), built_in_items()
    assert [(item.text is not None, item.image is not None) for item in items] == [
        *[(True, False)] * 3,
        *[(False, True)] * 3,
        *[(True, True)] * 2,
    ]
    assert [item.key for item in items] == [item.key for item in again] and len({item.key for item in items}) == 8
    assert len({item.image.size for item in items[3:6]}) == 3


def test_the_first_model_is_gone_before_the_other_dtype_is_loaded():
    models: list[weakref.ref] = []

    def load(dtype: str | None) -> Retriever:
        gc.collect()
        assert all(model() is None for model in models)
        retriever = with_fresh_queries(miniature(dtype))
        models.append(weakref.ref(retriever.backbone.model))
        return retriever

    assert by_result(run(load))["ok"] == ALL and len(models) == 2


def test_nothing_is_left_behind():
    backbone = miniature()
    before, implementations = parameter_hash(backbone.model), [part._attn_implementation for part in configs(backbone)]
    run(lambda dtype: with_fresh_queries(backbone))
    assert parameter_hash(backbone.model) == before
    assert [part._attn_implementation for part in configs(backbone)] == implementations


def configs(backbone: FrozenBackbone) -> list:
    config = backbone.model.config
    return [config, config.text_config, config.vision_config]


def test_progress_names_every_check():
    said: list[str] = []
    examine(lambda dtype: with_fresh_queries(miniature(dtype)), batch_size=1, progress=said.append)
    assert said[0] == "loading" and set(said) >= ALL


# --- what does not apply ----------------------------------------------------------------------------------------------------


def test_a_backbone_without_a_fast_path_skips_it():
    backbone = miniature()
    backbone.splits_prefix = False
    examination = run(lambda dtype: with_fresh_queries(backbone))
    found = by_result(examination)
    assert found["skipped"] == {"prefix split", "kept prefixes"} and found["failed"] == set()
    assert "slow" in rows_of(examination, "prefix split")[0].note


def test_quantized_weights_have_no_other_dtype():
    """bitsandbytes needs an accelerator; transformers tells quantized models by this mark."""
    backbone = miniature()
    backbone.model.is_quantized = True
    examination = run(lambda dtype: with_fresh_queries(backbone))
    assert by_result(examination) == {"ok": ALL - {"other dtype"}, "failed": set(), "skipped": {"other dtype"}}
    assert "quantized" in rows_of(examination, "other dtype")[0].note


def test_attention_that_the_model_does_not_have_is_skipped():
    backbone = load_backbone(device="cpu", attn_implementation="eager")
    backbone.model._supports_sdpa = False
    examination = run(lambda dtype: with_fresh_queries(backbone))
    assert by_result(examination)["skipped"] == {"attention"} and by_result(examination)["failed"] == set()
    assert rows_of(examination, "attention")[0].note


def test_what_cannot_be_loaded_is_not_examined():
    with pytest.raises(BackboneError, match="gone"):
        run(lambda dtype: with_fresh_queries(load_backbone("./gone")))


# --- what is wrong ----------------------------------------------------------------------------------------------------------


class PaddingSeen(FrozenBackbone):
    """Its suffix ignores the prefix's mask."""

    def suffix(self, states, latents_ND, *readout):
        return super().suffix(replace(states, mask=torch.ones_like(states.mask)), latents_ND, *readout)


class WrongGradient(FrozenBackbone):
    """The right values, and twice the gradient, on the fast path."""

    def suffix(self, states, latents_ND, *readout):
        return super().suffix(states, 2 * latents_ND - latents_ND.detach(), *readout)


class KeepsBadly(FrozenBackbone):
    """Right as long as no prefix is kept: then values stand beside the wrong keys."""

    def prefixes(self, batches):
        return [KeptPrefix(kept.keys, kept.values.flip(-2), kept.next_position) for kept in super().prefixes(batches)]


class Disturbed(FrozenBackbone):
    """Both paths, fast and slow, with something added to the states that depends on the batch."""

    def suffix(self, states, latents_ND, *readout):
        return super().suffix(states, latents_ND, *readout) + self.disturbance(len(states))

    def full(self, prepared, latents_ND, *readout):
        return super().full(prepared, latents_ND, *readout) + self.disturbance(len(prepared))


class SizeMatters(Disturbed):
    def disturbance(self, batch):
        return 0.01 * torch.ones(batch, 1, self.dim).cumsum(dim=-1) / self.dim * (batch == 1)


class PlaceMatters(Disturbed):
    def disturbance(self, batch):
        return 0.01 * torch.arange(batch)[:, None, None] * torch.linspace(-1, 1, self.dim)


class PicturesGoAstray(FrozenBackbone):
    """Beside texts, pictures are handed to the wrong items; among themselves they are not."""

    def prepare(self, items, generation_prompt=True):
        prepared = super().prepare(items, generation_prompt)
        if "pixel_values" in prepared.inputs and any(item.image is None for item in items):
            return Prepared({**prepared.inputs, "pixel_values": prepared.inputs["pixel_values"].flip(0)})
        return prepared


class Talkative(FrozenBackbone):
    """It answers otherwise once it has embedded."""

    embedded = False

    def prefix(self, prepared, pictures=None):
        self.embedded = True
        return super().prefix(prepared, pictures)

    def generate(self, conversations, max_new_tokens=32):
        return [answer + " indeed" * self.embedded for answer in super().generate(conversations, max_new_tokens)]


class Learns(FrozenBackbone):
    """With every batch a weight changes that no item uses."""

    def suffix(self, states, latents_ND, *readout):
        self.embedding.weight.data[-1, 0] += 1e-6
        return super().suffix(states, latents_ND, *readout)


class Thaws(FrozenBackbone):
    """After the first batch an optimiser could train it."""

    def suffix(self, states, latents_ND, *readout):
        self.model.requires_grad_(True)
        return super().suffix(states, latents_ND, *readout)


class Careless(Retriever):
    """It saves rounded latents."""

    def save_pretrained(self, path, overwrite=False):
        rounded = with_fresh_queries(self.backbone)
        rounded.queries.latents.data = self.queries.latents.data.bfloat16().float()
        rounded.save_pretrained(path, overwrite)


def careless(dtype: str | None) -> Retriever:
    backbone = miniature(dtype)
    return Careless(backbone, with_fresh_queries(backbone).queries)


def other_eager(dtype: str | None) -> Retriever:
    """In one layer eager attention gives a little more than sdpa."""
    backbone = miniature(dtype)

    def more(layer, _inputs, output):
        return (output[0] * (1.01 if layer.config._attn_implementation == "eager" else 1), *output[1:])

    backbone.model.base_model.language_model.layers[1].self_attn.register_forward_hook(more)
    return with_fresh_queries(backbone)


def other_in_bfloat16(dtype: str | None) -> Retriever:
    """One norm is lost in the other dtype."""
    backbone = miniature(dtype)
    if dtype is not None:
        backbone.model.base_model.language_model.norm.weight.data.fill_(1)
    return with_fresh_queries(backbone)


def backbone_of(kind: type[FrozenBackbone]) -> Callable[[str | None], Retriever]:
    return lambda dtype: with_fresh_queries(miniature(dtype, kind))


# What is wrong: the check that is named for it, and those that may fail with it.
WRONGS: dict[str, tuple[Callable[[str | None], Retriever], str, set[str]]] = {
    # What stands in padding is arbitrary, and other with every implementation of attention.
    "padding seen": (backbone_of(PaddingSeen), "prefix split", {*BATCHES, "kept prefixes", "attention"}),
    "wrong gradient": (backbone_of(WrongGradient), "prefix split", set()),
    "badly kept": (backbone_of(KeepsBadly), "kept prefixes", set()),
    "size matters": (backbone_of(SizeMatters), "batch of one", {"kept prefixes"}),
    "place matters": (backbone_of(PlaceMatters), "order in the batch", {*BATCHES, "kept prefixes"}),
    "pictures go astray": (backbone_of(PicturesGoAstray), "mixed batch", {*BATCHES, "kept prefixes"}),
    "other eager": (other_eager, "attention", set()),
    "careless saving": (careless, "saved adapter", set()),
    "talkative": (backbone_of(Talkative), "generation", set()),
    "learns": (backbone_of(Learns), "weights", set()),
    "thaws": (backbone_of(Thaws), "weights", set()),
    "other in bfloat16": (other_in_bfloat16, "other dtype", set()),
}


@pytest.mark.slow
@pytest.mark.parametrize(("load", "named", "with_it"), WRONGS.values(), ids=WRONGS)
def test_what_is_wrong_fails_its_check_and_no_other(load, named, with_it):
    examination = run(load)
    found = by_result(examination)
    assert named in found["failed"] and found["failed"] <= {named, *with_it}
    assert found["ok"] == ALL - found["failed"] and found["skipped"] == set()
    assert all(row.value > row.tolerance and len(row.note) > 80 for row in examination.failed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "named"), [(PaddingSeen, "batch of one"), (WrongGradient, "prefix split"), (PicturesGoAstray, "mixed batch")]
)
def test_half_precision_hides_none_of_it(kind, named):
    examination = run(lambda dtype: with_fresh_queries(miniature(dtype or "bfloat16", kind)))
    assert named in by_result(examination)["failed"]


class Breaks(FrozenBackbone):
    """Its slow path raises; so does generation."""

    def full(self, prepared, latents_ND, *readout):
        raise RuntimeError("no such kernel\nand a long trace")

    def generate(self, conversations, max_new_tokens=32):
        raise KeyError


def test_a_check_that_raises_has_failed_and_stops_no_other():
    examination = run(backbone_of(Breaks))
    assert by_result(examination)["failed"] == {"prefix split", "generation"}
    assert by_result(examination)["ok"] == ALL - {"prefix split", "generation"}
    (slow,), (generation,) = rows_of(examination, "prefix split"), rows_of(examination, "generation")
    assert slow.note.startswith("It cannot be run: RuntimeError: no such kernel. ")
    assert generation.note.startswith("It cannot be run: KeyError. ")


def test_attention_is_restored_after_an_error():
    backbone = miniature()

    def never_eager(layer, _inputs, _output):
        assert layer.config._attn_implementation != "eager", "not like this"

    backbone.model.base_model.language_model.layers[1].self_attn.register_forward_hook(never_eager)
    examination = run(lambda dtype: with_fresh_queries(backbone))
    assert by_result(examination)["failed"] == {"attention"} and "not like this" in examination.failed[0].note
    assert {part._attn_implementation for part in configs(backbone)} == {"sdpa", SLQ_SDPA}


class GivesNothing(FrozenBackbone):
    """Its states are NaN, as after an overflow."""

    def suffix(self, states, latents_ND, *readout):
        return torch.nan * super().suffix(states, latents_ND, *readout)


def test_states_that_are_not_finite_fail_every_comparison():
    examination = run(backbone_of(GivesNothing))
    assert by_result(examination) == {"ok": {"generation", "weights"}, "failed": ALL - {"generation", "weights"}, "skipped": set()}
    assert all("not finite" in row.note for row in examination.failed)
    assert examination.figures["closest_items"] is None
