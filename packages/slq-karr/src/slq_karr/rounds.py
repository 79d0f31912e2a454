"""Which image gets a query about what, and of which category: the mix is met by what is accepted, not by what is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from slq_karr.answers import Target


@dataclass(frozen=True)
class Task:
    """One query to write. image: an image's path in the set."""

    image: str
    target: Target
    category: str


@dataclass
class Plan:
    """Hands out tasks by rounds. wanted: category -> accepted queries. tries: tasks that one image may get until one is accepted."""

    wanted: Mapping[str, int]
    tries: int
    offers: dict[str, list[Target]] = field(default_factory=dict)
    _given: dict[str, list[Task]] = field(default_factory=dict)
    _accepted: Counter[str] = field(default_factory=Counter)
    _done: set[str] = field(default_factory=set)
    _about: Counter[str] = field(default_factory=Counter)

    def missing(self) -> dict[str, int]:
        """How many accepted queries each category lacks."""
        return {name: max(0, count - self._accepted[name]) for name, count in self.wanted.items()}

    def propose(self, images: Sequence[str]) -> list[Task]:
        """At most one task for each image, in their order, until every category has as many as it lacks; none that was tried."""
        missing, about, tasks = self.missing(), Counter(self._about), []
        possible = {image: found for image in images if (found := self._possible(image, missing))}
        supply = Counter(category for found in possible.values() for category in {task.category for task in found})

        def urgency(task: Task) -> tuple[float, int, int]:
            """The category with the fewest images for what it lacks, then the target with the fewest queries."""
            return (-missing[task.category] / supply[task.category], about[task.target.name], places[task.category])

        places = {name: place for place, name in enumerate(self.wanted)}
        for found in possible.values():
            task = min((task for task in found if missing[task.category]), key=urgency, default=None)
            if task is not None:
                tasks.append(task)
                missing[task.category] -= 1
                about[task.target.name] += 1
        return tasks

    def begin(self, tasks: Sequence[Task]) -> None:
        """These tasks are being tried."""
        for task in tasks:
            self._given.setdefault(task.image, []).append(task)
            self._about[task.target.name] += 1

    def accept(self, tasks: Iterable[Task]) -> None:
        """These tasks gave accepted queries: their images get no more."""
        for task in tasks:
            self._accepted[task.category] += 1
            self._done.add(task.image)

    def _possible(self, image: str, missing: Mapping[str, int]) -> list[Task]:
        """What an image could still be asked about."""
        given = self._given.get(image, [])
        if image in self._done or len(given) >= self.tries:
            return []
        tried = {(task.target.name, task.category) for task in given}
        return [
            Task(image, target, category)
            for target in self.offers.get(image, ())
            for category in target.categories
            if missing.get(category, 0) > 0 and (target.name, category) not in tried
        ]
