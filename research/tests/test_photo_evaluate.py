"""The comparison of methods on photographs, on stand-ins: the table, runs that stop and go on, what a model keeps, and the page of hits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from research.photo import evaluate, questions, study
from research.photo.assemble import assemble
from research.photo.command import METHODS, main
from research.photo.knowledge import Concept, judged, write_concepts
from research.photo.language import load_language_model
from research.photo.photographs import TEST, of_split, read_photographs
from research.photo.vision import load_encoder
from slq.io.files import write_jsonl
from slq.models import FrozenModel, load_model

FIGURES = ("t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10", "knowledge_hit5")


@pytest.fixture(scope="module")
def base(parts, tmp_path_factory) -> Path:
    """A model as `build` saves it, its projector untrained."""
    folder = tmp_path_factory.mktemp("base") / "model"
    encoder = load_encoder("test_efficientnet", parts / "encoder.pth")
    model, processor = assemble(load_language_model(parts / "language"), encoder, size=64)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(parts, tmp_path_factory) -> Path:
    """A dozen test photographs, and some to train on and to choose by."""
    whole = read_photographs(parts / "captions.jsonl")
    kept = [each for split, count in (("train", 8), ("validation", 4), ("test", 12)) for each in of_split(whole, split)[:count]]
    file = tmp_path_factory.mktemp("data") / "captions.jsonl"
    (file.parent / "images").symlink_to(parts / "images")
    write_jsonl(file, [{"image": each.name, "split": each.split, "captions": list(each.captions)} for each in kept])
    return file


@pytest.fixture(scope="module")
def knowledge(data, tmp_path_factory) -> Path:
    """Queries for whatever the captions of the test photographs name; both captions of a stand-in name the same."""
    folder = tmp_path_factory.mktemp("knowledge")
    test = of_split(read_photographs(data), TEST)
    words = sorted({word for each in test for word in re.findall(r"[a-z]{3,}", each.captions[0])} - {"the", "and", "see"})
    concepts = [judged(Concept(word, (word,)), test) for word in words]
    shown = [each for each in concepts if 1 <= len(each.relevant) <= 3][:4]
    assert len(shown) == 4
    write_concepts(shown, folder)
    rows = [
        (f"{each.name}-{number}", f"query {number} for it", each.name, kind)
        for each in shown
        for number, kind in enumerate(("logic", "utility"), 1)
    ]
    write_jsonl(folder / "queries.jsonl", [dict(zip(("id", "text", "concept", "category"), row, strict=True)) for row in rows])
    return folder


def command(base: Path, data: Path, knowledge: Path, out: Path, *methods: str, **given: object) -> list[str]:
    options = {"train_images": 6, "validation_images": 4, "epochs": 1, "batch_size": 4, "num_latents": 2, "seeds": 2, "tries": 1, **given}
    options |= {"model": base, "data": data, "output": out, "knowledge": knowledge, "device": "cpu"}
    named = [text for name in methods for text in ("--methods", name)]
    return ["evaluate", *named, *(text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value)))]


@pytest.fixture(scope="module")
def evaluated(base, data, knowledge, tmp_path_factory) -> Path:
    """A study of the frozen methods."""
    out = tmp_path_factory.mktemp("evaluated") / "study"
    assert main(command(base, data, knowledge, out, "zero_shot", "untrained", "latents", "latent_lora", epochs=2)) == 0
    return out


@pytest.fixture(scope="module")
def model(base) -> FrozenModel:
    return load_model(str(base), device="cpu")


def table(out: Path) -> dict:
    return json.loads((out / "photographs.json").read_text())


# The table


def test_the_methods_of_the_command_are_those_there_are():
    assert evaluate.METHODS == METHODS


@pytest.mark.slow
def test_the_table_has_every_figure_of_every_method(evaluated, data, base):
    found = table(evaluated)
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["zero_shot", "untrained", "latents", "latent_lora"]
    for name, row in rows.items():
        for figure in (*FIGURES, "retention"):
            assert set(row[figure]) == {"mean", "sd"} and 0 <= row[figure]["mean"] <= 100, (name, figure)
        assert all(row["ci95"][figure][0] <= row[figure]["mean"] <= row["ci95"][figure][1] for figure in FIGURES)
        assert row["t2i_r1"]["mean"] <= row["t2i_r5"]["mean"] <= row["t2i_r10"]["mean"]
        assert not row["weights_changed"] and row["retention"] == {"mean": 100.0, "sd": 0.0} and "values" not in row
        assert set(row["knowledge_by_category"]) == {"logic", "utility"}
    assert [rows[name]["seeds"] for name in rows] == [1, 1, 2, 2]
    assert rows["latents"]["parameters"] == 2 * 64 < rows["latent_lora"]["parameters"] and rows["zero_shot"]["parameters"] == 0
    assert rows["latents"]["seconds"]["mean"] > 0 and rows["latents"]["rates"].keys() == {"learning_rate"}
    assert rows["latent_lora"]["rates"]["latent_lora_learning_rate"] == pytest.approx(2.56 / 64)
    assert found["photographs"] == {"train": 6, "validation": 4, "test": 12} and found["captions"] == 24 and found["questions"] is None
    assert found["against"] == {"rival": "lora", "methods": {}} and found["provenance"]["device"] == "cpu" and found["command"]
    assert found["base_model"]["name"] == base.name, "no folder of this machine"
    measured = json.loads((evaluated / rows["latents"]["measured"]).read_text())
    assert len(measured["figures"]["t2i_r1"]["values"]) == 24 and len(measured["figures"]["i2t_r1"]["values"]) == 12
    assert len(set(measured["figures"]["knowledge_hit5"]["clusters"])) == 4, "queries of a concept are a cluster"


@pytest.mark.slow
def test_nothing_is_done_twice(evaluated, base, data, knowledge, monkeypatch, capsys):
    before = {file: file.stat().st_mtime_ns for file in evaluated.rglob("measured.json")}
    rows, copy = table(evaluated)["rows"], evaluated / "more" / "copy.json"
    monkeypatch.setattr(study, "train", lambda *args, **options: pytest.fail("trained again"))
    monkeypatch.setattr(study, "evaluate", lambda *args, **options: pytest.fail("scored again"))
    assert main([*command(base, data, knowledge, evaluated, "latents", "zero_shot", epochs=2, result=copy), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    changing = ("command", "provenance")
    plain = [{name: value for name, value in row.items() if name not in changing} for row in found["rows"]]
    assert plain == [{name: value for name, value in row.items() if name not in changing} for row in rows]
    assert {file: file.stat().st_mtime_ns for file in evaluated.rglob("measured.json")} == before
    assert json.loads(copy.read_text()) == table(evaluated)


@pytest.mark.slow
def test_lora_is_compared_in_a_call_of_its_own(evaluated, base, data, knowledge, monkeypatch):
    """On the same folder; what the model answers is given, since a random one knows nothing."""
    known = questions.all_questions(of_split(read_photographs(data), "validation"), {})[0]
    monkeypatch.setattr(evaluate, "known_questions", lambda model, tasks, cache_dir: [known])
    monkeypatch.setattr(evaluate, "right_after", lambda before, after, tasks, cache_dir: {"general": 0.25, "photographs": 0.75})
    assert main(command(base, data, knowledge, evaluated, "lora", seeds=1, epochs=2)) == 0
    found = table(evaluated)
    row = found["rows"][-1]
    assert row["name"] == "lora" and row["weights_changed"] and row["retention"] == {"mean": 50.0, "sd": 0.0}
    assert row["rates"] == pytest.approx({"learning_rate": 3e-4}) and len(row["tries"]) == 1
    assert set(found["against"]["methods"]) == {"zero_shot", "untrained", "latents", "latent_lora"}
    latents = {each["name"]: each for each in found["rows"]}["latents"]
    difference = found["against"]["methods"]["latents"]["t2i_r5"]
    assert difference["difference"] == pytest.approx(latents["t2i_r5"]["mean"] - row["t2i_r5"]["mean"])
    assert difference["ci95"][0] <= difference["difference"] <= difference["ci95"][1]
    asked = json.loads((evaluated / "questions.json").read_text())
    assert found["questions"]["general"] == {"asked": 145, "known": 145} == asked["general"]["counts"]


@pytest.mark.slow
def test_a_run_without_time_writes_what_there_is_and_goes_on(base, data, knowledge, tmp_path, capsys):
    """With late interaction, whose row is of several vectors, and two rates to choose from."""
    options = command(base, data, knowledge, tmp_path, "late_interaction", seeds=1, tries=2)
    assert main([*options, "--minutes", "1e-9"]) == 0
    assert table(tmp_path)["rows"] == [] and "the same command goes on from here" in capsys.readouterr().err
    assert main(options) == 0
    (row,) = table(tmp_path)["rows"]
    assert row["name"] == "late_interaction" and "modality_gap" not in row and row["parameters"] == 2 * 64
    assert json.loads((tmp_path / row["measured"]).read_text())["modality_gap"] is None
    tries = {each["learning_rate"]: each["validation"] for each in row["tries"]}
    assert len(tries) == 2 and max(tries) == pytest.approx(3 * min(tries)) and tries[row["rates"]["learning_rate"]] == max(tries.values())


@pytest.mark.slow
def test_a_model_that_knows_no_facts_is_told(base, data, knowledge, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "FACT_NAMES", 1)
    monkeypatch.setattr(study, "FACT_IMAGES", 1)
    assert main(command(base, data, knowledge, tmp_path, "latent_lora_facts", seeds=1)) == 0
    assert "latent_lora_facts is left out" in capsys.readouterr().err and table(tmp_path)["rows"] == []
    assert any(json.loads(line)["kind"] == "fact" for line in (tmp_path / "facts.jsonl").read_text().splitlines())


# Questions


def test_only_questions_that_the_model_answers_are_kept(model, data, tmp_path, monkeypatch):
    photographs = of_split(read_photographs(data), "validation")
    word = photographs[0].captions[0].split()[-2]
    tasks = questions.all_questions(photographs, {word: Concept(word, (word,))})
    assert [task.name for task in tasks] == ["general", "photographs"] and len(tasks[0]) == 145
    assert tasks[1].questions[0].answers == (word,) and tasks[1].questions[0].item.image == photographs[0].image
    few = [questions._task("general", tasks[0].questions[:3], "x"), tasks[1]]
    monkeypatch.setattr(FrozenModel, "generate", lambda self, asked, most: ["It is Paris, not Rome." for _ in asked])
    known = questions.known_questions(model, few, tmp_path / "answers")
    assert [[question.answers for question in task.questions] for task in known] == [[("Paris",), ("Rome",)]]
    monkeypatch.setattr(FrozenModel, "generate", lambda self, asked, most: ["Paris" for _ in asked])
    assert questions.right_after(model, model, known, tmp_path / "after") == {"general": 0.5}


# The page


@pytest.mark.slow
def test_the_page_shows_hits_and_the_worst(evaluated, data, knowledge, tmp_path, capsys):
    file = tmp_path / "page.html"
    options = ["pages", str(evaluated), "--data", str(data), "--knowledge", str(knowledge)]
    assert main([*options, "-o", str(file)]) == 0 and str(file) in capsys.readouterr().out
    page = file.read_text()
    measured = json.loads((evaluated / {row["name"]: row for row in table(evaluated)["rows"]}["latents"]["measured"]).read_text())
    assert page.count("<section>") == len(measured["captions"]) + 2 * 8 and 'src="http' not in page
    hits = [query["top"] for query in (*measured["captions"].values(), *2 * [*measured["knowledge"].values()])]
    assert page.count("data:image/jpeg;base64,") == sum(map(len, hits)) and page.count('class="answer"') > 0
    ranks = [float(each) for each in re.findall(r"place (\d+)", page.split("find their answers last</h2>")[1])]
    assert ranks == sorted((query["rank"] for query in measured["knowledge"].values()), reverse=True)
    assert main([*options, "--method", "full"]) == 1
    assert "has no row full" in capsys.readouterr().err
    assert main(["pages", str(tmp_path), "--data", str(data)]) == 1
    assert "name a folder that `evaluate` wrote" in capsys.readouterr().err
