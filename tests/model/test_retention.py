"""The same questions before and after: latent queries change nothing, damaged weights lose much, and a stopped run goes on."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from slq.adapters.latents import LatentQueries
from slq.encoders.latent import LatentEncoder
from slq.errors import InputError, MissingExtraError, OutputError
from slq.io.provenance import parameter_hash
from slq.miniature.suites import SUITES, score
from slq.models import FrozenModel
from slq.retention import SUITE_NAMES, Answer, Change, QuestionRunner, Report, load_tasks, result_record, retention
from slq.retention.ask import content_hash
from slq.retention.harness_tasks.scoring import ocrbench, realworldqa
from slq.retention.own import is_right
from slq.types import Item

QUESTIONS = 8


@pytest.fixture(scope="module")
def tasks() -> list:
    return load_tasks(SUITE_NAMES, QUESTIONS)


@pytest.fixture(scope="module")
def encoder(model: FrozenModel) -> LatentEncoder:
    return LatentEncoder(model, LatentQueries.create(4, model.dim, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def latents_report(model: FrozenModel, encoder: LatentEncoder, tasks: list) -> Report:
    return retention(model, model, tasks, encoder=encoder)


@pytest.fixture(scope="module")
def damaged(model: FrozenModel) -> FrozenModel:
    """The model with noise in its decoder's weights: a copy."""
    network = copy.deepcopy(model.model)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.get_decoder().parameters():
        parameter += 0.5 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    return model.with_model(network, "miniature, damaged")


class Counted:
    """A model that counts what it is really asked, and stops where a run is to be cut off."""

    def __init__(self, model: FrozenModel, stop_after: int | None = None):
        self.wrapped, self.stop_after, self.batches = model, stop_after, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def generate(self, conversations: Sequence, max_new_tokens: int = 32) -> list[str]:
        if self.batches == self.stop_after:
            raise KeyboardInterrupt
        self.batches += 1
        return self.wrapped.generate(conversations, max_new_tokens)


def test_latent_queries_change_no_answer_and_no_weight(latents_report, model):
    assert latents_report.same_weights and latents_report.weights_at_the_end == parameter_hash(model.model)
    assert latents_report.changed == 0 and latents_report.encoded == 3 * QUESTIONS
    for one in latents_report.tasks:
        assert one.before == one.after and one.before.right > 0.5 and one.questions == QUESTIONS
        assert one.change == Change(difference=0, ci95=(0, 0), p=1, answers=0, lost=0, gained=0)


@pytest.mark.parametrize("name", SUITE_NAMES)
def test_scores_are_those_of_the_suite(name, latents_report, model):
    whole, kinds = score(model, SUITES[name](QUESTIONS, 0))
    (found,) = [one for one in latents_report.tasks if one.name == name]
    assert found.before.right == whole
    of_kind: dict[str, list[float]] = {}
    for answer in latents_report.before.answers[name]:
        of_kind.setdefault(answer.kind, []).append(answer.score)
    assert {kind: np.mean(values) for kind, values in of_kind.items()} == kinds


def test_damaged_weights_lose_answers(model, damaged):
    before = parameter_hash(model.model)
    steps: list[int] = []
    report = retention(model, damaged, load_tasks(["knowledge"], 24), progress=steps.append)
    change = report.tasks[0].change
    assert change.difference < -0.3 and change.ci95[1] < 0 and change.p < 0.01
    assert change.answers >= change.lost > 6 and change.lost - change.gained == round(-24 * change.difference)
    assert not report.same_weights and report.before.weights == report.weights_at_the_end == before != report.after.weights
    assert sum(steps) == 48 and report.encoded == 0


def test_changes_are_counted_by_hand(model):
    """Four questions: still right in other words, no longer right, newly right, and half right as before."""

    class ByHand:
        name, metadata = "by hand", {"source": "here"}
        sides = iter([[1, 1, 0, 0.5], [1, 0, 1, 0.5]])
        words = iter(["a b c d".split(), "A x y d".split()])

        def __len__(self) -> int:
            return 4

        def ask(self, runner: QuestionRunner) -> list[Answer]:
            pairs = zip(next(self.sides), next(self.words), strict=True)
            return [Answer(str(n), "k", "?", "e", given, value) for n, (value, given) in enumerate(pairs)]

    (one,) = retention(model, model, [ByHand()]).tasks
    assert (one.before.right, one.after.right, one.change.difference) == (0.625, 0.625, 0)
    assert (one.change.answers, one.change.lost, one.change.gained) == (3, 1, 1)


def test_a_model_alone(model, tasks):
    report = retention(model, None, tasks[:1])
    (one,) = report.tasks
    assert (report.after, one.after, one.change) == (None, None, None)
    assert one.before.ci95[0] <= one.before.right <= one.before.ci95[1]
    task = result_record(report, tasks[:1], settings={}, command="", device="cpu", per_question=True)["tasks"]["knowledge"]
    assert task["after"] is None and task["answers"][0]["after"] is None and task["answers"][0]["before"]


# --- kept answers -----------------------------------------------------------------------------------------------------------


def test_a_stopped_run_goes_on(model, tasks, latents_report, tmp_path):
    stopped = Counted(model, stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        retention(stopped, None, tasks, cache_dir=tmp_path, batch_size=4)
    first, *others = sorted(tmp_path.rglob("*.json"))
    assert len(others) == 2
    first.write_bytes(first.read_bytes()[:-5])  # corrupt
    going_on = Counted(model)
    report = retention(going_on, None, tasks, cache_dir=tmp_path, batch_size=4)
    assert going_on.batches == 4  # of 6, two were cached whole
    again = Counted(model)
    assert retention(again, None, tasks, cache_dir=tmp_path, batch_size=4) == report and again.batches == 0
    for name in SUITE_NAMES:
        assert [one.given for one in report.before.answers[name]] == [one.given for one in latents_report.before.answers[name]]


def test_kept_answers_never_stand_in_for_those_after_embedding(model, damaged, encoder, tasks, tmp_path):
    asked = Counted(model)
    retention(asked, asked, tasks[:1], encoder=encoder, cache_dir=tmp_path)
    assert asked.batches == 2
    retention(asked, asked, tasks[:1], encoder=encoder, cache_dir=tmp_path)
    assert asked.batches == 2  # both sides are kept, each as its own
    other = Counted(damaged)
    retention(asked, other, tasks[:1], cache_dir=tmp_path)
    assert (asked.batches, other.batches) == (2, 1)
    retention(asked, None, load_tasks(["knowledge"], QUESTIONS, seed=1), cache_dir=tmp_path)
    assert asked.batches == 3


def test_answers_that_cannot_be_kept_are_said(model, tasks, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        retention(model, None, tasks[:1], cache_dir=tmp_path / "file")


# --- tasks ------------------------------------------------------------------------------------------------------------------


def test_questions_follow_seed_and_limit():
    (whole,), (some,), (others,) = load_tasks(["reading"], 6), load_tasks(["reading"], 6, limit=4), load_tasks(["reading"], 6, seed=1)
    keys = [[question.item.content_hash for question in task.questions] for task in (whole, some, others)]
    assert keys[1] == keys[0][:4] and len(some) == 4 and keys[0] != keys[2]
    assert some.metadata == {"source": "the miniature's picture-book world", "drawn": 6, "seed": 0, "limit": 4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": []}, "none was named"),
        ({"names": ["spatial", "spatial"]}, "each once: spatial, spatial"),
        ({"names": ["spatial"], "limit": 0}, "A limit of 0 leaves no question"),
        ({"names": ["spatial"], "questions": 0}, "0 questions asks nothing"),
        ({"names": ["knowledge"], "questions": 100_000}, "fewer than 100000 questions"),
    ],
)
def test_what_cannot_be_asked_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        load_tasks(**arguments)


def test_a_missing_extra_names_its_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    with pytest.raises(MissingExtraError, match=r"'mmmu_val' is not a suite .*pip install \"slq\[retention\]\""):
        load_tasks(["knowledge", "mmmu_val"])


# --- results ----------------------------------------------------------------------------------------------------------------


def test_a_result_says_what_it_depends_on(latents_report, tasks, encoder, model):
    result = result_record(
        latents_report,
        tasks,
        adapter="my-adapter",
        encoder=encoder,
        settings={"batch_size": 32},
        command="slq retention",
        device="cpu",
        seed=0,
        per_question=True,
    )
    result = json.loads(json.dumps(result))
    assert (result["format"], result["encoder"], result["fingerprint"]) == (
        2,
        json.loads(json.dumps(encoder.describe())),
        encoder.fingerprint,
    )
    assert result["before"]["base_model"] == result["after"]["base_model"] == model.identity.to_dict()
    assert result["before"]["weights_sha256"] == result["weights_sha256_at_the_end"] == parameter_hash(model.model)
    assert {"date", "seed", "torch", "transformers", "slq", "device"} <= set(result["provenance"])
    spatial = result["tasks"]["spatial"]
    assert set(spatial["by_kind"]) == {"colour", "count", "position", "yes/no"} and spatial["by_kind"]["count"]["questions"] == 2
    assert [one["before"] == one["after"] for one in spatial["answers"]] == [True] * QUESTIONS
    assert sum(one["before_score"] for one in spatial["answers"]) == QUESTIONS * spatial["before"]["right"]
    assert spatial["change"] == {"difference": 0, "ci95": [0, 0], "p": 1, "answers": 0, "lost": 0, "gained": 0}
    hashes = {name: task["metadata"]["questions_sha256"] for name, task in result["tasks"].items()}
    assert len(set(hashes.values())) == 3
    plain = result_record(latents_report, tasks, settings={}, command="", device="cpu")
    assert "answers" not in plain["tasks"]["spatial"] and plain["encoder"] is None
    assert {name: task["metadata"]["questions_sha256"] for name, task in plain["tasks"].items()} == hashes


def test_the_hash_of_questions_is_of_images_words_and_answers(model, items):
    words, image, other, both = ([model.message(each)] for each in (items[0], items[4], items[5], Item(items[0].text, items[4].image)))
    given = [([words], ["a"]), ([words], ["b"]), ([image], ["a"]), ([other], ["a"]), ([both], ["a"]), ([words, image], ["a"])]
    hashes = [content_hash(*each) for each in given]
    assert len(set(hashes)) == len(given) and hashes == [content_hash(*each) for each in given]


# --- how RealWorldQA and OCRBench are scored --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [
        ("B", ["B", "b.", "(B)", "B. Two", " B) left"], ["C", "", "Both", "A or B"]),
        ("Downhill", ["downhill", "Downhill."], ["It goes downhill", "down"]),
        ("0", ["0", "0."], ["10", "zero"]),
    ],
)
def test_realworldqa(answer, right, wrong):
    assert [realworldqa({"answer": answer}, [given])["acc"] for given in [*right, *wrong]] == [1] * len(right) + [0] * len(wrong)


def test_ocrbench():
    row = {"dataset": "TextVQA", "answer": ["Red Bull", "redbull"]}
    assert [ocrbench(row, [given])["acc"] for given in ("RED\nBULL", "a redbull can", "red", "red  bull")] == [1, 1, 0, 0]
    formula = {"dataset": "HME100k", "answer": ["x ^ 2 + Y"]}
    assert [ocrbench(formula, [given])["acc"] for given in ("$x^2+Y$", "x^2 + y")] == [1, 0]
    assert ocrbench({"dataset": "IAM", "answer": "word"}, ["A Word."])["acc"] == 1


def test_questions_of_ones_own(model, folder, tmp_path):
    folder.images("cat.png")
    rows = [
        {"question": "what is this?", "answer": ["cat", "a kitten"], "image": "cat.png", "category": "animals", "id": 7},
        {"question": "is it red?", "answer": "Yes!"},
        {"question": "and this?", "answer": "dog", "image": "gone.png"},
        {"question": "nothing is right", "answer": "?"},
        {"text": "no question"},
        "broken",
    ]
    (task,) = load_tasks([str(folder.jsonl("mine.jsonl", rows))])
    assert (task.name, len(task), [failure.item[-6:] for failure in task.failures]) == ("mine", 2, ["line 3", "line 4", "line 5", "line 6"])
    report = retention(model, None, [task])
    first, second = report.before.answers["mine"]
    assert (first.id, first.kind, first.expected, second.id) == ("mine/7", "animals", "cat | a kitten", "mine/mine.jsonl line 2")
    assert report.tasks[0].questions == 2 and task.metadata["source"] == "mine.jsonl"
    with pytest.raises(InputError, match="Two tasks have one name"):
        load_tasks([str(folder.path / "mine.jsonl"), str(folder.text("mine.csv", "question,answer\nwhat,that\n"))])
    with pytest.raises(InputError, match=r"no row can be asked; the first problem is .*'question'"):
        load_tasks([str(folder.jsonl("none.jsonl", [{"text": "a"}]))])


@pytest.mark.parametrize(
    ("given", "expected", "right"),
    [
        ("cat", ["Cat"], True),
        ("It is a cat.", ["dog", "cat"], True),
        ("a category", ["cat"], False),
        ("42", ["4"], False),
        ("", ["a"], False),
    ],
)
def test_an_answer_of_ones_own_is_right_as_whole_words(given, expected, right):
    assert is_right(given, expected) == right
