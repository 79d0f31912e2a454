"""What pre-training asks: which tasks, how often, of which scenes; and riddles, which tell a fact instead of a name."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
from seeing import POSITION, plain_scene, read_caption, sampled, true_answer

from research.pretraining.tasks import GAPS, SHARES, SIGNS, WHOLE, _riddle, _with_gaps, image_tasks, training_scene, word_task
from slq.miniature.world.concepts import all_facts, concepts
from slq.miniature.world.language import caption, object_names, phrase, questions
from slq.miniature.world.scenes import BACKGROUNDS, SIGN, Group, Scene, recolour, split_of, with_sign

TWO = Scene((Group("cat", "red", 2), Group("dog", "blue")), across=True, background="on grass", style="flat", seed=0)
DESCRIBE, READ = "describe the image.", "what does the sign say?"


def kind_of(question: str) -> str:
    """The kind of a question, read from its words."""
    patterns = {
        "name": r"what is shown\?",
        "background": r"where is it\?",
        "where": r"where (is|are) the .+\?",
        "colour": r"what colour (is|are) the .+\?",
        "count": r"how many .+ are there\?",
        "position": rf"(what is|(is|are) the .+) ({POSITION}) the .+\?",
        "yes/no": r"(is|are) (there|the) .+\?",
    }
    return next(kind for kind, pattern in patterns.items() if re.fullmatch(pattern, question))


def asked_about(scene: Scene, rng: random.Random) -> set[tuple[str, str]]:
    """Questions, with their answers, from many tasks about one scene."""
    return {task[:2] for _ in range(20) for task in image_tasks(scene, rng, 20)[1:] if task[0].endswith("?")}


# Images


@pytest.mark.parametrize("count", [1, 3, 7])
def test_as_many_tasks_as_wished_and_the_bare_image_first(count):
    rng = random.Random(count)
    first: Counter[bool] = Counter()
    for scene in sampled(200, seed=count):
        tasks = image_tasks(scene, rng, count)
        assert len(tasks) == count
        question, answer, *_ = tasks[0]
        assert question == "" and answer in (object_names(scene), caption(scene))
        first[answer == object_names(scene)] += 1
    assert min(first.values()) > 60, "names and captions about equally often"


def test_every_task_beside_an_image_is_true_of_it():
    rng = random.Random(0)
    for scene in sampled(200, seed=30):
        for question, answer, *_ in image_tasks(scene, rng, 7)[1:]:
            if question == DESCRIBE:
                assert answer == caption(scene)
            elif found := re.fullmatch(r"but (\w+)", question):
                assert answer == caption(recolour(scene, 0, found[1]))
            else:
                assert answer == true_answer(scene, question, answer)


def test_kinds_of_questions_come_in_their_shares():
    kinds = {kind for scene in sampled(50) for kind, _, _ in questions(scene, random.Random(0))}
    assert SHARES.keys() == kinds - {"read"}
    assert min(SHARES.values()) > 0
    rng = random.Random(1)
    asked = Counter(kind_of(question) for _ in range(60) for question, *_ in image_tasks(TWO, rng, 50)[1:] if question != DESCRIBE)
    for kind, share in SHARES.items():
        assert asked[kind] / asked.total() == pytest.approx(share / sum(SHARES.values()), abs=0.025), kind


def test_a_scene_is_asked_only_what_it_can_answer():
    rng = random.Random(2)
    lonely = asked_about(plain_scene(TWO.groups[1]), rng)
    assert {kind_of(question) for question, _ in lonely} == {"name", "colour", "count", "yes/no"}
    board = asked_about(plain_scene(Group(SIGN, "", word="exit"), across=False), rng)
    assert (READ, "exit") in board
    assert {kind_of(question) for question, _ in board - {(READ, "exit")}} == {"name", "yes/no"}


def test_every_sign_is_read_once_and_some_things_are_recoloured():
    rng = random.Random(3)
    for scene in (with_sign(scene, rng) for scene in sampled(60, seed=31, signs=0)):
        (word,) = (group.word for group in scene.groups if group.concept == SIGN)
        assert [answer for question, answer, *_ in image_tasks(scene, rng, 7) if question == READ] == [word]
    changes = [any(question.startswith("but ") for question, *_ in image_tasks(plain_scene(TWO.groups[1]), rng, 7)) for _ in range(400)]
    assert 0.17 < sum(changes) / len(changes) < 0.33


def test_training_scenes_are_of_the_training_split_and_keep_the_wished_concept():
    rng = random.Random(4)
    scenes = [training_scene(rng, 1 + number % 3, "owl") for number in range(300)]
    assert {split_of(scene) for scene in scenes} == {"train"}
    signed = [scene for scene in scenes if any(group.concept == SIGN for group in scene.groups)]
    assert abs(len(signed) / len(scenes) - SIGNS) < 0.08
    assert all("owl" in object_names(scene) for scene in scenes if scene not in signed)


# Words


def test_a_riddle_tells_one_training_fact_in_place_of_its_things_name():
    rng = random.Random(5)
    answered: Counter[str] = Counter()
    for scene in (training_scene(rng, rng.choice([1, 2, 3])) for _ in range(600)):
        riddle, answer, *_ = _riddle(scene, rng)
        if object_names(scene) == SIGN:
            assert (riddle, answer) == (answer_of_sign(riddle, scene), SIGN)
            continue
        place, told = told_in(riddle, scene)
        fact = next(fact for fact in concepts()[scene.groups[place].concept].facts if told in fact.training_phrasings)
        phrases = [phrase(group) for group in scene.groups]
        across = scene.across if len(phrases) > 1 else None
        for text, instead in ((riddle.replace(told, "it"), "it"), (answer, concepts()[fact.concept].singular)):
            if text == object_names(scene):
                answered["names"] += 1
            else:
                assert read_caption(text) == ([*phrases[:place], instead, *phrases[place + 1 :]], across, scene.background)
                answered["caption"] += text == answer
    assert min(answered["names"], answered["caption"]) > 200


def answer_of_sign(riddle: str, scene: Scene) -> str:
    """A board alone has no fact: it is captioned, and its name is the answer."""
    assert read_caption(riddle) == ([phrase(scene.groups[0])], None, scene.background)
    return riddle


def told_in(riddle: str, scene: Scene) -> tuple[int, str]:
    """Which group a riddle does not name, and what it tells instead: the longest phrasing that fits."""
    missing = [place for place, group in enumerate(scene.groups) if group.concept != SIGN and phrase(group) not in riddle]
    assert len(missing) == 1, (riddle, scene)
    phrasings = [told for fact in concepts()[scene.groups[missing[0]].concept].facts for told in fact.phrasings]
    return missing[0], max((told for told in phrasings if told in riddle), key=len)


def test_riddles_tell_every_training_phrasing_and_never_a_benchmark_one():
    rng = random.Random(6)
    facts = concepts()["cat"].facts
    told = set()
    for _ in range(600):
        riddle, answer, *_ = _riddle(TWO, rng)
        assert "cat" in answer or "dog" in answer
        assert not any(fact.benchmark_phrasing in riddle for fact in all_facts())
        told |= {phrasing for fact in facts for phrasing in fact.training_phrasings if phrasing in riddle}
    assert told == {phrasing for fact in facts for phrasing in fact.training_phrasings}


def test_a_fifth_of_the_tasks_of_words_are_riddles():
    """Counted by those on a background: no other task has a fact stand there."""
    rng = random.Random(7)
    facts = all_facts()
    endings = {f"{told} {background}" for fact in facts for told in fact.training_phrasings for background in BACKGROUNDS if background}
    tasks = [word_task(rng, facts) for _ in range(3000)]
    lonely = sum(text.split("there is ")[-1].removeprefix("an image of ").removeprefix("we see ") in endings for text, *_ in tasks)
    # 20 % are riddles, of which three fifths show one group, five sixths of these on a background, and 30 % are signs.
    assert lonely / len(tasks) == pytest.approx(0.2 * 3 / 5 * 5 / 6 * (1 - SIGNS), abs=0.025)


def in_order(few: str, many: str) -> bool:
    """Whether the words of one text stand in the other in their order, with or without gaps."""
    rest = iter(many.split())
    return all(word in rest for word in few.split())


def told_of(concept: str, text: str) -> bool:
    """Whether a text is a training phrasing of one of the concept's facts, whole or with gaps."""
    return len(text.split()) >= 2 and any(in_order(text, told) for fact in concepts()[concept].facts for told in fact.training_phrasings)


def test_facts_are_told_whole_or_with_gaps():
    rng = random.Random(9)
    told = "the tall animal with a very long neck and spots"
    texts = [_with_gaps(told, rng) for _ in range(2000)]
    assert all(in_order(text, told) and len(text.split()) >= 3 for text in texts)
    assert sum(text == told for text in texts) / 2000 == pytest.approx(WHOLE + (1 - WHOLE) * (1 - GAPS) ** 10, abs=0.04)
    gone = sum(10 - len(text.split()) for text in texts) / 2000 / 10
    assert gone == pytest.approx(GAPS * (1 - WHOLE), abs=0.02)
    assert {_with_gaps("nine lives", rng) for _ in range(50)} == {"nine lives"}


def test_tasks_of_words_are_answered_truly():
    rng = random.Random(8)
    facts = all_facts()
    by_told = {told: fact for fact in facts for told in fact.training_phrasings}
    by_singular = {concept.singular: name for name, concept in concepts().items()}
    forms: Counter[str] = Counter()
    for _ in range(2000):
        text, answer, *_ = word_task(rng, facts)
        asked = re.fullmatch(r"(?:what is|name|which thing is this:) (.+?)[.?]", text)
        if answer in concepts() and told_of(answer, text):
            forms["fact"] += 1
        elif asked and answer in by_singular and told_of(by_singular[answer], asked[1]):
            forms["question"] += 1
        elif found := re.fullmatch(r"tell a fact about (an? .+)\.", text):
            assert concepts()[by_told[answer].concept].singular == found[1]
            forms["told"] += 1
        elif text in concepts() and answer in by_told:
            assert by_told[answer].concept == text
            forms["named"] += 1
        elif text in concepts():
            assert answer == text
            forms["name"] += 1
    for form, share in {"fact": 0.26, "question": 0.2, "told": 0.04, "named": 0.05}.items():
        assert forms[form] / 2000 == pytest.approx(share, abs=0.03), form
    assert forms["name"] > 5


def test_without_facts_no_word_of_a_fact_is_told():
    rng = random.Random(0)
    tasks = [word_task(rng, []) for _ in range(1000)]
    phrasings = {told for fact in all_facts() for told in fact.training_phrasings}
    assert not any(told in f"{task.user} {task.answer}" for task in tasks for told in phrasings)
    assert not any(task.told for task in tasks)
    assert {"caption", "question"} == {"question" if task.user.endswith("?") else "caption" for task in tasks}
