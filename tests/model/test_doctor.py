"""The doctor: all is well on the miniature, and each thing that can be wrong with a model fails the check that is named for it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

import pytest
import torch

from slq.config.evaluate import DOCTOR_CHECKS
from slq.doctor import ALL_CHECKS, Report, Row, run_checks, with_fresh_queries
from slq.doctor.subject import built_in_items
from slq.encoders.latent import LatentEncoder
from slq.errors import ModelError
from slq.io.provenance import parameter_hash
from slq.judge import QUESTIONS
from slq.models import FrozenModel, ItemKV, PreparedBatch, load_model
from slq.models.attention import SLQ_SDPA
from slq.models.families import family_of

ALL = set(ALL_CHECKS)
BATCHES = {"batch of one", "order in the batch", "mixed batch"}


def miniature(dtype: str | None = None, kind: type[FrozenModel] = FrozenModel) -> FrozenModel:
    """The miniature in float32 unless asked otherwise, as a model of this class."""
    loaded = load_model(dtype=dtype, device="cpu")
    return kind(loaded.model, loaded.processor, family_of("internvl"), loaded.identity.name, loaded.identity.revision)


def run(load: Callable[[str | None], LatentEncoder], names: Collection[str] = ALL_CHECKS) -> Report:
    return run_checks(load, batch_size=1, names=names)


def by_result(report: Report) -> dict[str, set[str]]:
    """Names of the checks with each result; a check with one failed row has failed."""
    found: dict[str, set[str]] = {"ok": set(), "failed": set(), "skipped": set()}
    for row in report.rows:
        found[row.result].add(row.check)
    return {**found, "ok": found["ok"] - found["failed"]}


def rows_of(report: Report, check: str) -> list[Row]:
    return [row for row in report.rows if row.check == check]


# --- all is well ------------------------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """A report of the miniature: what it said while it ran, and the models it still held when it loaded another."""

    said: list[str] = field(default_factory=list)
    models: list[weakref.ref] = field(default_factory=list)
    held: int = 0

    def load(self, dtype: str | None) -> LatentEncoder:
        gc.collect()
        self.held += sum(model() is not None for model in self.models)
        encoder = with_fresh_queries(miniature(dtype))
        self.models.append(weakref.ref(encoder.model.model))
        return encoder


@pytest.fixture(autouse=True)
def few_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports that a test makes for itself; `healthy` is as a user has it."""
    monkeypatch.setattr("slq.doctor.report.JUDGED_SCENES", 4)
    monkeypatch.setattr("slq.doctor.report.QUESTIONS", QUESTIONS[:1])


@pytest.fixture(scope="module")
def watched() -> Watched:
    return Watched()


@pytest.fixture(scope="module")
def healthy(watched) -> Report:
    return run_checks(watched.load, batch_size=1, progress=watched.said.append)


def test_the_miniature_is_well(healthy):
    assert by_result(healthy) == {"ok": ALL, "failed": set(), "skipped": set()} and healthy.failed == ()
    assert all(row.what and 0 <= row.value <= row.tolerance and not row.note for row in healthy.rows)
    assert len(rows_of(healthy, "prefix caching")) == len(rows_of(healthy, "weights")) == 2
    assert healthy.model == miniature().identity.to_dict()
    assert healthy.fingerprint == with_fresh_queries(miniature()).fingerprint


def test_figures(healthy):
    figures = healthy.figures
    assert figures["parameters"] == sum(each.numel() for each in miniature().model.parameters())
    assert (figures["device"], figures["dtype"], figures["attn_implementation"], figures["batch_size"]) == ("cpu", "float32", "sdpa", 1)
    assert len(figures["tokens_per_image"]) == 3 and min(figures["tokens_per_image"].values()) >= 36
    assert figures["closest_items"]["value"] > 100 * figures["closest_items"]["tolerance"]
    assert figures["judge"]["works"] and figures["judge"]["question"] == "{item}is there {text}?" and figures["judge"]["auc"] > 0.8
    assert figures["peak_memory_bytes"] > 4 * figures["parameters"] and figures["load_seconds"] > 0
    assert figures["texts_per_second"] > 0 and figures["images_per_second"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_well(dtype):
    report = run(lambda other: with_fresh_queries(miniature(other or dtype)))
    assert by_result(report)["ok"] == ALL
    (row,) = rows_of(report, "other dtype")
    assert f"{dtype} against float32" in row.what


def test_chosen_checks_run_alone():
    report = run(lambda dtype: with_fresh_queries(miniature()), {"saved adapter", "weights"})
    assert by_result(report) == {"ok": {"saved adapter", "weights"}, "failed": set(), "skipped": set()}
    assert "dtype" in report.figures and "texts_per_second" not in report.figures
    assert DOCTOR_CHECKS == ALL_CHECKS


def test_the_items_are_of_every_kind_and_repeat_themselves():
    items, again = built_in_items(), built_in_items()
    assert [(item.text is not None, item.image is not None) for item in items] == [
        *[(True, False)] * 3,
        *[(False, True)] * 3,
        *[(True, True)] * 2,
    ]
    assert [item.content_hash for item in items] == [item.content_hash for item in again] and len(
        {item.content_hash for item in items}
    ) == 8
    assert len({item.image.size for item in items[3:6]}) == 3


def test_the_first_model_is_gone_before_the_other_dtype_is_loaded(healthy, watched):
    assert len(watched.models) == 2 and watched.held == 0


@pytest.mark.slow
def test_nothing_is_left_behind():
    model = miniature()
    before, implementations = parameter_hash(model.model), [part._attn_implementation for part in configs(model)]
    run(lambda dtype: with_fresh_queries(model))
    assert parameter_hash(model.model) == before
    assert [part._attn_implementation for part in configs(model)] == implementations


def configs(model: FrozenModel) -> list:
    config = model.model.config
    return [config, config.text_config, config.vision_config]


def test_progress_names_every_check(healthy, watched):
    assert watched.said[0] == "loading" and set(watched.said) >= ALL


# --- what does not apply ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_model_without_a_two_pass_forward_skips_it():
    model = miniature()
    model.supports_two_pass = False
    report = run(lambda dtype: with_fresh_queries(model), QUICK)
    found = by_result(report)
    assert found["skipped"] == {"prefix caching", "cached prefixes"} and found["failed"] == set()
    assert "reference path" in rows_of(report, "prefix caching")[0].note


@pytest.mark.slow
def test_quantized_weights_have_no_other_dtype():
    """bitsandbytes needs an accelerator; transformers tells quantized models by this mark."""
    model = miniature()
    model.model.is_quantized = True
    report = run(lambda dtype: with_fresh_queries(model), {"other dtype", "weights"})
    assert by_result(report) == {"ok": {"weights"}, "failed": set(), "skipped": {"other dtype"}}
    assert "quantized" in rows_of(report, "other dtype")[0].note


@pytest.mark.slow
def test_attention_that_the_model_does_not_have_is_skipped():
    model = load_model(device="cpu", attn_implementation="eager")
    model.model._supports_sdpa = False
    report = run(lambda dtype: with_fresh_queries(model), {"attention", "weights"})
    assert by_result(report)["skipped"] == {"attention"} and by_result(report)["failed"] == set()
    assert rows_of(report, "attention")[0].note


def test_what_cannot_be_loaded_is_not_checked():
    with pytest.raises(ModelError, match="gone"):
        run(lambda dtype: with_fresh_queries(load_model("./gone")))


# --- what is wrong ----------------------------------------------------------------------------------------------------------


class PaddingSeen(FrozenModel):
    """Its suffix ignores the prefix's mask."""

    def decode_latents(self, states, latents_ND, *readout):
        return super().decode_latents(replace(states, mask=torch.ones_like(states.mask)), latents_ND, *readout)


class WrongGradient(FrozenModel):
    """The right values, and twice the gradient, on the fast path."""

    def decode_latents(self, states, latents_ND, *readout):
        return super().decode_latents(states, 2 * latents_ND - latents_ND.detach(), *readout)


class KeepsBadly(FrozenModel):
    """Right as long as no prefix is kept: then values stand beside the wrong keys."""

    def prefill_packed(self, batches):
        return [ItemKV(kept.keys, kept.values.flip(-2), kept.next_position) for kept in super().prefill_packed(batches)]


class Disturbed(FrozenModel):
    """Both paths, fast and slow, with something added to the states that depends on the batch."""

    def decode_latents(self, states, latents_ND, *readout):
        return super().decode_latents(states, latents_ND, *readout) + self.disturbance(len(states))

    def forward_reference(self, prepared, latents_ND, *readout):
        return super().forward_reference(prepared, latents_ND, *readout) + self.disturbance(len(prepared))


class SizeMatters(Disturbed):
    def disturbance(self, batch):
        return 0.01 * torch.ones(batch, 1, self.dim).cumsum(dim=-1) / self.dim * (batch == 1)


class PlaceMatters(Disturbed):
    def disturbance(self, batch):
        return 0.01 * torch.arange(batch)[:, None, None] * torch.linspace(-1, 1, self.dim)


class ImagesGoAstray(FrozenModel):
    """Beside texts, images are handed to the wrong items; among themselves they are not."""

    def prepare(self, items, generation_prompt=True):
        prepared = super().prepare(items, generation_prompt)
        if "pixel_values" in prepared.inputs and any(item.image is None for item in items):
            return PreparedBatch({**prepared.inputs, "pixel_values": prepared.inputs["pixel_values"].flip(0)})
        return prepared


class Talkative(FrozenModel):
    """It answers otherwise once it has embedded."""

    embedded = False

    def prefill(self, prepared, images=None):
        self.embedded = True
        return super().prefill(prepared, images)

    def generate(self, conversations, max_new_tokens=32):
        return [answer + " indeed" * self.embedded for answer in super().generate(conversations, max_new_tokens)]


class Learns(FrozenModel):
    """With every batch a weight changes that no item uses."""

    def decode_latents(self, states, latents_ND, *readout):
        self.embedding.weight.data[-1, 0] += 1e-6
        return super().decode_latents(states, latents_ND, *readout)


class Thaws(FrozenModel):
    """After the first batch an optimiser could train it."""

    def decode_latents(self, states, latents_ND, *readout):
        self.model.requires_grad_(True)
        return super().decode_latents(states, latents_ND, *readout)


class Careless(LatentEncoder):
    """It saves rounded latents."""

    def save_pretrained(self, path, overwrite=False):
        rounded = with_fresh_queries(self.model)
        rounded.queries.latents.data = self.queries.latents.data.bfloat16().float()
        rounded.save_pretrained(path, overwrite)


def careless(dtype: str | None) -> LatentEncoder:
    model = miniature(dtype)
    return Careless(model, with_fresh_queries(model).queries)


def other_eager(dtype: str | None) -> LatentEncoder:
    """In one layer eager attention gives a little more than sdpa."""
    model = miniature(dtype)

    def more(layer, _inputs, output):
        return (output[0] * (1.01 if layer.config._attn_implementation == "eager" else 1), *output[1:])

    model.model.base_model.language_model.layers[1].self_attn.register_forward_hook(more)
    return with_fresh_queries(model)


def other_in_bfloat16(dtype: str | None) -> LatentEncoder:
    """One norm is lost in the other dtype."""
    model = miniature(dtype)
    if dtype is not None:
        model.model.base_model.language_model.norm.weight.data.fill_(1)
    return with_fresh_queries(model)


def model_of(kind: type[FrozenModel]) -> Callable[[str | None], LatentEncoder]:
    return lambda dtype: with_fresh_queries(miniature(dtype, kind))


# What is wrong: the check that is named for it, and those that may fail with it.
WRONGS: dict[str, tuple[Callable[[str | None], LatentEncoder], str, set[str]]] = {
    # What stands in padding is arbitrary, and other with every implementation of attention.
    "padding seen": (model_of(PaddingSeen), "prefix caching", {*BATCHES, "cached prefixes", "attention"}),
    "wrong gradient": (model_of(WrongGradient), "prefix caching", set()),
    "badly kept": (model_of(KeepsBadly), "cached prefixes", set()),
    "size matters": (model_of(SizeMatters), "batch of one", {"cached prefixes"}),
    "place matters": (model_of(PlaceMatters), "order in the batch", {*BATCHES, "cached prefixes"}),
    "images go astray": (model_of(ImagesGoAstray), "mixed batch", {*BATCHES, "cached prefixes"}),
    "other eager": (other_eager, "attention", set()),
    "careless saving": (careless, "saved adapter", set()),
    "talkative": (model_of(Talkative), "generation", set()),
    "learns": (model_of(Learns), "weights", set()),
    "thaws": (model_of(Thaws), "weights", set()),
    "other in bfloat16": (other_in_bfloat16, "other dtype", set()),
}


QUICK = ALL - {"other dtype"}  # without loading a model a second time


@pytest.mark.slow
@pytest.mark.parametrize(("load", "named", "with_it"), WRONGS.values(), ids=WRONGS)
def test_what_is_wrong_fails_its_check_and_no_other(load, named, with_it):
    report = run(load, QUICK | {named})
    found = by_result(report)
    assert named in found["failed"] and found["failed"] <= {named, *with_it}
    assert found["ok"] == (QUICK | {named}) - found["failed"] and found["skipped"] == set()
    assert all(row.value > row.tolerance and len(row.note) > 80 for row in report.failed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "named"), [(PaddingSeen, "batch of one"), (WrongGradient, "prefix caching"), (ImagesGoAstray, "mixed batch")]
)
def test_half_precision_hides_none_of_it(kind, named):
    report = run(lambda dtype: with_fresh_queries(miniature(dtype or "bfloat16", kind)), {named})
    assert by_result(report) == {"ok": set(), "failed": {named}, "skipped": set()}


class Breaks(FrozenModel):
    """Its slow path raises; so does generation."""

    def forward_reference(self, prepared, latents_ND, *readout):
        raise RuntimeError("no such kernel\nand a long trace")

    def generate(self, conversations, max_new_tokens=32):
        raise KeyError


@pytest.mark.slow
def test_a_check_that_raises_has_failed_and_stops_no_other():
    report = run(model_of(Breaks), QUICK)
    assert by_result(report)["failed"] == {"prefix caching", "generation"}
    assert by_result(report)["ok"] == QUICK - {"prefix caching", "generation"}
    (slow,), (generation,) = rows_of(report, "prefix caching"), rows_of(report, "generation")
    assert slow.note.startswith("It cannot be run: RuntimeError: no such kernel. ")
    assert generation.note.startswith("It cannot be run: KeyError. ")


@pytest.mark.slow
def test_attention_is_restored_after_an_error():
    model = miniature()

    def never_eager(layer, _inputs, _output):
        assert layer.config._attn_implementation != "eager", "not like this"

    model.model.base_model.language_model.layers[1].self_attn.register_forward_hook(never_eager)
    report = run(lambda dtype: with_fresh_queries(model), {"attention"})
    assert by_result(report)["failed"] == {"attention"} and "not like this" in report.failed[0].note
    assert {part._attn_implementation for part in configs(model)} == {"sdpa", SLQ_SDPA}


class GivesNothing(FrozenModel):
    """Its states are NaN, as after an overflow."""

    def decode_latents(self, states, latents_ND, *readout):
        return torch.nan * super().decode_latents(states, latents_ND, *readout)


@pytest.mark.slow
def test_states_that_are_not_finite_fail_every_comparison():
    report = run(model_of(GivesNothing))
    assert by_result(report) == {"ok": {"generation", "weights"}, "failed": ALL - {"generation", "weights"}, "skipped": set()}
    assert all("not finite" in row.note for row in report.failed)
    assert report.figures["closest_items"] is None
