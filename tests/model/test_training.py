"""Training: same weights on every path, after every interruption; and only the latent queries learn."""

from __future__ import annotations

import importlib.util
import json
import math
import random
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version

import pytest
import torch
from safetensors.torch import load_file
from tolerance import TRAINING, assert_close

from slq.adapters.latents import MAX_TEMPERATURE, MIN_TEMPERATURE, LatentQueries, bound_temperature
from slq.encoders.baselines import LastTokenEncoder
from slq.encoders.latent import LatentEncoder
from slq.errors import ConfigError, InputError, MissingExtraError, NonFiniteLossError, OutputExistsError, ResumeMismatchError
from slq.io.provenance import parameter_hash
from slq.training import PRESETS, TrainConfig, train
from slq.training.batches import Batches
from slq.training.methods import methods
from slq.training.optim import create_optimizer
from slq.training.start import going_on_from, learning_rate
from slq.training.validation import split_validation
from slq.types import Item, Pair

# A random start, from which eight steps already lead somewhere.
OPTIONS = TrainConfig(**PRESETS["paper"] | {"num_latents": 4}, epochs=2, batch_size=8, validation_size=8, save_steps=2, learning_rate=5e-3)


def learned(folder):
    return load_file(folder / "adapter.safetensors")


def run(pairs, model, out, **changes):
    keywords = {name: changes.pop(name) for name in ("resume", "stop_after", "overwrite", "after_step", "start") if name in changes}
    return train(pairs, model, out, replace(OPTIONS, **changes), show_progress=False, **keywords)


@pytest.fixture(scope="module")
def unbroken(pairs, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "run"
    before = parameter_hash(model.model)
    encoder = run(pairs, model, out)
    assert parameter_hash(model.model) == before, "training changed the model"
    assert all(parameter.grad is None for parameter in model.model.parameters())
    return out, encoder


def test_it_learns_and_logs(unbroken, pairs):
    out, encoder = unbroken
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert sum(line["loss"] for line in lines[-2:]) < sum(line["loss"] for line in lines[:2])
    assert {"loss", "temperature", "grad_norm", "items_per_second"} <= set(lines[0])
    assert [line["epoch"] for line in lines] == [step / 4 for step in range(1, 9)]
    assert lines[0]["learning_rate"] == pytest.approx(5e-3) and 0 < lines[-1]["learning_rate"] < 1e-3
    assert datetime.fromisoformat(lines[0]["time"]) < datetime.fromisoformat(lines[-1]["time"])
    assert {f"val/{way}/hit@{k}" for way in ("query_to_positive", "positive_to_query") for k in (1, 5)} <= set(lines[3]) & set(lines[-1])
    assert (lines[3]["val/query_to_positive/queries"], lines[3]["val/query_to_positive/random_hit@1"]) == (8, pytest.approx(1 / 8))
    config = json.loads((out / "slq_adapter.json").read_text())
    assert config["training"]["steps"] == 8 and config["training"]["pairs"] == 32 and config["training"]["seed"] == 0
    assert config["training"]["warmup_steps"] == 100 and config["training"]["warmup_steps_taken"] == 1
    record = json.loads((out / "run.json").read_text())
    assert record["pairs_sha256"] == config["training"]["data_sha256"] and record["provenance"]["slq"] == version("slq")
    again = LatentEncoder.from_pretrained(out, encoder.model)
    assert torch.equal(again.queries.latents, encoder.queries.latents)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 4, 6])
def test_resumed_equals_unbroken(unbroken, pairs, model, tmp_path, stop):
    run(pairs, model, tmp_path / "run", stop_after=stop)
    assert not (tmp_path / "run" / "adapter.safetensors").exists()
    run(pairs, model, tmp_path / "run", resume=True)
    wanted, found = learned(unbroken[0]), learned(tmp_path / "run")
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 9))


@pytest.mark.slow
def test_a_killed_checkpoint_is_passed_over(unbroken, pairs, model, tmp_path):
    run(pairs, model, tmp_path / "run", stop_after=4)
    partial = tmp_path / "run" / "checkpoint-0000006.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    run(pairs, model, tmp_path / "run", resume=True)
    assert torch.equal(learned(tmp_path / "run")["latents"], learned(unbroken[0])["latents"])


@pytest.mark.slow
@pytest.mark.numeric
def test_slow_twin_learns_the_same(unbroken, pairs, model, tmp_path):
    run(pairs, model, tmp_path / "slow", prefix_caching=False)
    run(pairs, model, tmp_path / "nothing kept", cache_memory_gb=0)
    wanted = learned(unbroken[0])["latents"]
    for name in ("slow", "nothing kept"):
        assert_close(learned(tmp_path / name)["latents"], wanted, steps=TRAINING)


@pytest.mark.slow
def test_resume_refuses_another_run(pairs, model, tmp_path):
    plain = {"validation_size": None, "validation_split": 0.0}
    run(pairs, model, tmp_path / "run", stop_after=2, **plain)
    others = [*pairs[:-1], replace(pairs[-1], query=Item("something else"))]
    refused = [
        (pairs, {"batch_size": 4}, "batch_size was 8 and is now 4"),
        (others, {}, "the training pairs are others than before"),
        ([*pairs[1::-1], *pairs[2:]], {}, "the training pairs are in another order than before"),
    ]
    for given, changes, message in refused:
        with pytest.raises(ResumeMismatchError, match=message):
            run(given, model, tmp_path / "run", resume=True, **plain, **changes)


@pytest.mark.slow
def test_a_finished_run_is_trained_longer(unbroken, pairs, model, tmp_path):
    out = tmp_path / "run"
    run(pairs, model, out, max_steps=4)
    before = learned(out)["latents"]
    options = (out / "config.toml").read_bytes()
    with pytest.raises(ResumeMismatchError, match=r"has done 4 steps, and 3 are asked for: raise --epochs or --max-steps"):
        run(pairs, model, out, max_steps=3, resume=True)
    assert (out / "config.toml").read_bytes() == options, "it is refused before anything is written"
    run(pairs, model, out, resume=True)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9)) and not torch.equal(learned(out)["latents"], before)
    plain = [json.loads(line)["learning_rate"] for line in (unbroken[0] / "log.jsonl").read_text().splitlines()]
    assert [line["learning_rate"] for line in lines[4:]] == plain[4:], "the steps that were added follow the schedule of the whole run"
    assert json.loads((out / "slq_adapter.json").read_text())["training"]["steps"] == 8


@pytest.mark.slow
def test_a_run_that_ended_between_start_and_end_is_not_trained_longer(pairs, model, tmp_path):
    run(pairs, model, tmp_path / "run", max_steps=2, wise_ft_alpha=0.5)
    with pytest.raises(ResumeMismatchError, match=r"ended with --wise-ft-alpha 0\.5, .* with --model \S+run and another --output"):
        run(pairs, model, tmp_path / "run", wise_ft_alpha=0.5, resume=True)


@pytest.mark.slow
def test_a_run_begins_with_what_another_has_learned(unbroken, pairs, model, tmp_path):
    first = unbroken[1]
    second = run(pairs[:20], model, tmp_path / "run", start=first, max_steps=2, learning_rate=1e-9, validation_size=2)
    assert torch.allclose(second.queries.latents, first.queries.latents, atol=1e-7)
    assert second.queries.temperature.item() == pytest.approx(first.queries.temperature.item())
    assert json.loads((tmp_path / "run" / "slq_adapter.json").read_text())["training"]["start"] == first.fingerprint
    with pytest.raises(ResumeMismatchError, match=f"begins with nothing learned and began with an adapter .* {first.fingerprint}"):
        run(pairs[:20], model, tmp_path / "run", max_steps=3, learning_rate=1e-9, validation_size=2, resume=True)


def test_a_run_takes_the_shape_of_what_it_begins_with(encoder):
    config = going_on_from(encoder, "my-adapter", TrainConfig(epochs=2))
    assert (config.num_latents, config.init, config.add_generation_prompt, config.epochs) == (5, "prompt", False, 2)
    assert going_on_from(encoder, "my-adapter", config) == config, "a config file repeats it"
    with pytest.raises(ConfigError, match="num_latents is 7, but my-adapter was learned with 5: leave the option out"):
        going_on_from(encoder, "my-adapter", TrainConfig(num_latents=7))
    with pytest.raises(ConfigError, match="method is 'lora', but my-adapter was learned with 'latents'"):
        going_on_from(encoder, "my-adapter", TrainConfig(method="lora"))
    with pytest.raises(InputError, match=r"miniature \(last_token\) cannot be trained further"):
        going_on_from(LastTokenEncoder(encoder.model), "miniature", TrainConfig())


@pytest.mark.slow
def test_a_checkpoint_under_another_name_is_left_alone(pairs, model, tmp_path):
    run(pairs, model, tmp_path / "run", stop_after=2)
    own = tmp_path / "run" / "checkpoint-best"
    own.mkdir()
    (own / "model.safetensors").write_text("mine")
    run(pairs, model, tmp_path / "run", resume=True)
    assert (own / "model.safetensors").read_text() == "mine"
    with pytest.raises(OutputExistsError, match=r"holds checkpoint-best\S*, which slq did not write there"):
        run(pairs, model, tmp_path / "run", overwrite=True)


def test_a_loss_that_is_no_number_stops_before_anything_is_saved(pairs, model, tmp_path):
    def spoil(step, total, encoder):
        if step == 3:
            encoder.queries.latents.data[0, 0] = torch.nan

    with pytest.raises(NonFiniteLossError, match=r"The loss of step 4 is nan .* checkpoint-0000002 is from before it.*: pair \d+, pair "):
        run(pairs, model, tmp_path / "run", after_step=spoil)
    assert not (tmp_path / "run" / "adapter.safetensors").exists()
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-0000002"]
    assert all(value.isfinite().all() for value in load_file(tmp_path / "run" / "checkpoint-0000002" / "model.safetensors").values())


def test_an_output_folder_that_exists(pairs, model, unbroken):
    with pytest.raises(OutputExistsError, match="exists already"):
        run(pairs, model, unbroken[0])


def test_too_few_pairs(pairs, model, tmp_path):
    with pytest.raises(InputError, match="too few"):
        run(pairs[:1], model, tmp_path / "run", validation_split=0, validation_size=None)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"batch_size": 1}, "at least 2"),
        ({"num_latents": 0}, "at least 1"),
        ({"init": "ones"}, "one of prompt, normal, zeros"),
        ({"validation_split": -1}, "at least 0"),
    ],
)
def test_settings_that_cannot_work(setting, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**setting)


def test_the_learning_rate_is_in_step_with_the_start(model):
    prompt = model.prompt_embeddings()
    size = (prompt.square().sum() / prompt.numel()).sqrt().item()
    assert learning_rate(model, TrainConfig()) == pytest.approx(0.1 * size)
    assert learning_rate(model, TrainConfig(**PRESETS["paper"])) == pytest.approx(0.1 / model.dim**0.5)
    assert learning_rate(model, TrainConfig(method="lora")) == 1e-4
    assert learning_rate(model, TrainConfig(learning_rate=0.5)) == 0.5


@pytest.mark.slow
def test_whoever_watches_sees_every_step_and_changes_nothing(unbroken, pairs, model, tmp_path):
    seen = []
    watched = run(pairs, model, tmp_path / "run", after_step=lambda *state: seen.append((*state[:2], state[2].queries.latents.clone())))
    assert [(step, total) for step, total, _ in seen] == [(step, 8) for step in range(1, 9)]
    assert torch.equal(seen[-1][2], watched.queries.latents) and not torch.equal(seen[0][2], seen[1][2])
    assert torch.equal(watched.queries.latents, unbroken[1].queries.latents)


@pytest.mark.slow
def test_every_lever_runs(pairs, model, tmp_path):
    hard = [replace(pair, negatives=pairs[number - 1].positives[:1]) for number, pair in enumerate(pairs)]
    levers = {
        "loss": ("info_nce", "orthogonality:weight=0.5"),
        "false_negative_margin": 0.1,
        "positives_per_query": 2,
        "init": "prompt",
        "add_generation_prompt": False,
        "max_steps": 2,
    }
    plain = run(pairs, model, tmp_path / "plain", max_steps=2)
    pulled = run(hard, model, tmp_path / "levers", **levers)
    assert torch.isfinite(pulled.queries.latents).all()
    assert not torch.equal(pulled.queries.latents, plain.queries.latents)


@pytest.mark.slow
def test_tensorboard_shows_each_step_once_after_a_kill(pairs, model, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def die(step, total, encoder):
        if step == 5:
            raise RuntimeError("killed")

    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="killed"):
        run(pairs, model, out, report_to="tensorboard", after_step=die)
    run(pairs, model, out, report_to="tensorboard", resume=True)
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 9))
    assert {"learning_rate", "epoch", "grad_norm", "val/query_to_positive/hit@1"} <= set(events.Tags()["scalars"])


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_tracker_that_is_missing_is_an_error_before_any_work(pairs, model, tmp_path):
    with pytest.raises(MissingExtraError, match=r'--report-to wandb needs wandb, .*pip install "slq\[wandb\]"'):
        run(pairs, model, tmp_path / "run", report_to=("none", "wandb"))
    assert not (tmp_path / "run").exists()


def test_batches_hold_every_pair_once_and_know_their_positives(pairs):
    batches = Batches(pairs, 8, 1, seed=3)
    (epoch,) = batches.from_step(0, batches.steps_per_epoch)
    assert sorted(item.content_hash for batch in epoch for item in batch.queries) == sorted(pair.query.content_hash for pair in pairs)
    for batch in epoch:
        own = {pair.query.content_hash: {item.content_hash for item in pair.positives} for pair in batch.pairs}
        wanted = [[item.content_hash in own[query.content_hash] for item in batch.candidates] for query in batch.queries]
        assert batch.positives.tolist() == wanted and batch.positives.any(dim=1).all()
    later, second = batches.from_step(2, batches.steps_per_epoch + 2)
    assert [batch.items for batch in later] == [batch.items for batch in epoch[2:]] and len(second) == 2
    assert [item.content_hash for item in second[0].queries] != [item.content_hash for item in epoch[0].queries]


def test_a_shared_caption_is_nobodys_negative(pairs):
    shared = Item("a shared caption")
    twins = [replace(pairs[0], positives=(shared,)), replace(pairs[1], positives=(shared,))]
    ((batch,),) = Batches(twins, 2, 1, seed=0).from_step(0, 1)
    assert batch.candidates == (shared,) and batch.positives.tolist() == [[True], [True]]


def test_hard_negatives_are_nobodys_positive(pairs):
    negative = Item("something else entirely")
    ((batch,),) = Batches([replace(pair, negatives=(negative,)) for pair in pairs[:4]], 4, 1, seed=0).from_step(0, 1)
    assert batch.candidates[-1] == negative and not batch.positives[:, -1].any()


def test_a_single_left_over_pair_is_left_out(pairs):
    assert Batches(pairs[:9], 4, 1, seed=0).steps_per_epoch == 2
    assert Batches(pairs[:10], 4, 1, seed=0).steps_per_epoch == 3


def test_validation_pairs_are_set_aside(pairs):
    training, validation = split_validation(pairs, TrainConfig(validation_split=0.25, seed=1))
    assert len(training) == 30 and len(validation) == 10
    assert not {pair.query.content_hash for pair in training} & {pair.query.content_hash for pair in validation}
    assert split_validation(pairs, TrainConfig(validation_split=0.25, seed=1))[1] == validation
    assert len(split_validation(pairs[:3], TrainConfig(validation_size=10))[0]) == 2


@pytest.mark.parametrize("raw", [-50.0, 50.0])
def test_temperature_stays_in_bounds_and_comes_back_from_them(raw):
    queries = LatentQueries(2, 4)
    assert queries.temperature.item() == pytest.approx(0.07)
    queries.log_temperature.data.fill_(raw)
    assert MIN_TEMPERATURE - 1e-6 <= queries.temperature.item() <= MAX_TEMPERATURE + 1e-6
    bound_temperature(queries.log_temperature)
    (gradient,) = torch.autograd.grad(queries.temperature, queries.log_temperature)
    assert gradient > 0, "on the bound it can still be learned"


@pytest.mark.parametrize("method", ["latents", "lora", "full"])
def test_a_step_leaves_the_temperature_where_it_has_a_gradient(method, model):
    trainable = methods.get(method).create(model, TrainConfig(method=method))
    raw = next(value for name, value in trainable.named_parameters() if name.endswith("log_temperature"))
    raw.data.fill_(-50.0)
    trainable.after_step()
    assert raw.item() == pytest.approx(math.log(MIN_TEMPERATURE)) and trainable.temperature.item() == pytest.approx(MIN_TEMPERATURE)


def test_weight_decay_is_for_weights(model):
    with pytest.raises(ConfigError, match="weight_decay would only draw latent queries to 0"):
        TrainConfig(weight_decay=0.1)
    for options in (TrainConfig(), TrainConfig(method="lora", weight_decay=0.1)):
        trainable = methods.get(options.method).create(model, options)
        optimizer, _ = create_optimizer(trainable, replace(options, learning_rate=0.1), 10)
        decays = {parameter: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
        weights = {parameter for parameter in decays if options.method == "lora" and parameter.ndim == 2}
        assert len(decays) == len(list(trainable.parameters())) and all(decays[each] == 0.1 * (each in weights) for each in decays)


def test_matryoshka_widths_beyond_the_model_are_refused(pairs, model, tmp_path):
    with pytest.raises(ConfigError, match=f"at most the {model.dim} dimensions of the model, not {model.dim + 1}"):
        run(pairs, model, tmp_path / "run", matryoshka_dims=(8, model.dim + 1))
    assert not (tmp_path / "run").exists()


def test_training_leaves_global_random_numbers_alone(pairs, model, tmp_path):
    states = torch.get_rng_state(), random.getstate()
    run(pairs[:4], model, tmp_path / "run", max_steps=1, validation_size=None, validation_split=0.0)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]


def test_latents_start_as_named(model):
    prompt = model.prompt_embeddings()
    generator = torch.Generator().manual_seed(0)
    assert not LatentQueries.create(5, model.dim, "zeros").latents.any()
    assert torch.equal(LatentQueries.create(5, model.dim, "prompt", prompt).latents[3], prompt[-1])
    spread = LatentQueries.create(200, model.dim, "normal", generator=generator).latents.std().item()
    assert spread == pytest.approx(model.dim**-0.5, rel=0.02)
    with pytest.raises(ValueError, match="Unknown init"):
        LatentQueries.create(5, 8, "ones")
    with pytest.raises(ValueError, match="needs the embeddings"):
        LatentQueries.create(5, 8, "prompt")


def test_pairs_of_text_alone_train_too(model, tmp_path):
    texts = [Pair(Item(f"{number} apples"), (Item(f"apples: {number}"),)) for number in range(8)]
    assert run(texts, model, tmp_path / "run", max_steps=1, validation_size=2).queries.num_latents == 4


def test_bad_items_are_skipped_and_listed(pairs, model, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    bad = [
        replace(pairs[0], query=Item(image=broken), source="row 0"),
        replace(pairs[1], positives=(Item(" "), *pairs[1].positives), source="row 1"),
        replace(pairs[2], negatives=(Item(image=tmp_path / "missing.png"),), source="row 2"),
        *pairs[3:20],
    ]
    run(bad, model, tmp_path / "run", max_steps=1, validation_size=2)
    listed = [json.loads(line)["source"] for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert listed == ["row 0", "row 1", "row 2"]
    assert "missing.png" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "slq_adapter.json").read_text())["training"]["pairs"] == 17
