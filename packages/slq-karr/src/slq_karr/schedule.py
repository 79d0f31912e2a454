"""Which image gets a query about what, and of which category: the mix is met by what is accepted, not by what is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from slq_karr.answers import Target


@dataclass(frozen=True)
class QueryPlan:
    """One query to write. image: an image's path in the set."""

    image: str
    target: Target
    category: str


@dataclass
class Schedule:
    """Hands out plans by rounds. wanted: category -> accepted queries. tries: plans that one image may get until one is accepted."""

    wanted: Mapping[str, int]
    tries: int
    offers: dict[str, list[Target]] = field(default_factory=dict)
    _given: dict[str, list[QueryPlan]] = field(default_factory=dict)
    _accepted: Counter[str] = field(default_factory=Counter)
    _done: set[str] = field(default_factory=set)
    _about: Counter[str] = field(default_factory=Counter)

    def missing(self) -> dict[str, int]:
        """How many accepted queries each category lacks."""
        return {name: max(0, count - self._accepted[name]) for name, count in self.wanted.items()}

    def propose(self, images: Sequence[str]) -> list[QueryPlan]:
        """At most one plan for each image, in their order, until every category has as many as it lacks; none that was tried."""
        missing, about, plans = self.missing(), Counter(self._about), []
        possible = {image: found for image in images if (found := self._possible(image, missing))}
        supply = Counter(category for found in possible.values() for category in {plan.category for plan in found})

        def urgency(plan: QueryPlan) -> tuple[float, int, int]:
            """The category with the fewest images for what it lacks, then the target with the fewest queries."""
            return (-missing[plan.category] / supply[plan.category], about[plan.target.name], places[plan.category])

        places = {name: place for place, name in enumerate(self.wanted)}
        for found in possible.values():
            plan = min((plan for plan in found if missing[plan.category]), key=urgency, default=None)
            if plan is not None:
                plans.append(plan)
                missing[plan.category] -= 1
                about[plan.target.name] += 1
        return plans

    def begin(self, plans: Sequence[QueryPlan]) -> None:
        """These plans are being tried."""
        for plan in plans:
            self._given.setdefault(plan.image, []).append(plan)
            self._about[plan.target.name] += 1

    def accept(self, plans: Iterable[QueryPlan]) -> None:
        """These plans gave accepted queries: their images get no more."""
        for plan in plans:
            self._accepted[plan.category] += 1
            self._done.add(plan.image)

    def _possible(self, image: str, missing: Mapping[str, int]) -> list[QueryPlan]:
        """What an image could still be asked about."""
        given = self._given.get(image, [])
        if image in self._done or len(given) >= self.tries:
            return []
        tried = {(plan.target.name, plan.category) for plan in given}
        return [
            QueryPlan(image, target, category)
            for target in self.offers.get(image, ())
            for category in target.categories
            if missing.get(category, 0) > 0 and (target.name, category) not in tried
        ]
