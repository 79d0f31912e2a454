"""The losses against closed forms, torch's cross entropy and slow twins; values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from tolerance import FORWARD, assert_close
from torch import Tensor
from torch.nn import functional

from slq.errors import InputError
from slq.losses.info_nce import InfoNCE, info_nce
from slq.losses.orthogonality import orthogonality_penalty

MARGIN = 0.1


def unit(rows: int, width: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=-1).to(dtype)


def twin_direction(cosines: Tensor, positives: Tensor, temperature: float | Tensor, margin: float | None, hardness: float = 0.0) -> Tensor:
    """One direction of InfoNCE as its definition says it, one exponential at a time."""
    losses = []
    for row in range(cosines.shape[0]):
        columns = range(cosines.shape[1])
        mine = [column for column in columns if positives[row, column]]
        if not mine:
            continue  # a hard negative is nobody's query
        lowest = min(cosines[row, column].item() for column in mine)
        negatives = [column for column in columns if column not in mine]
        if margin is not None:
            negatives = [column for column in negatives if cosines[row, column].item() <= lowest + margin]
        terms = []
        hard = {other: math.exp(hardness * cosines[row, other].item() / torch.as_tensor(temperature).item()) for other in negatives}
        weights = {other: each * len(hard) / sum(hard.values()) for other, each in hard.items()}
        for column in mine:
            top = torch.exp(cosines[row, column] / temperature)
            bottom = top + sum(weights[other] * torch.exp(cosines[row, other] / temperature) for other in negatives)
            terms.append(-torch.log(top / bottom))
        losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses)  # type: ignore[return-value]


def twin(
    queries: Tensor,
    candidates: Tensor,
    positives: Tensor,
    temperature: float | Tensor,
    symmetric: bool,
    margin: float | None,
    hardness: float = 0.0,
) -> Tensor:
    cosines = queries @ candidates.T
    loss = twin_direction(cosines, positives, temperature, margin, hardness)
    return (loss + twin_direction(cosines.T, positives.T, temperature, margin, hardness)) / 2 if symmetric else loss


def several_positives() -> Tensor:
    """4 queries, 7 candidates: two queries with two positives, a candidate shared by two queries, two hard negatives (5 and 6)."""
    positives = torch.zeros(4, 7, dtype=torch.bool)
    for query, candidate in [(0, 0), (0, 4), (1, 1), (2, 2), (2, 1), (3, 3)]:
        positives[query, candidate] = True
    return positives


@pytest.mark.parametrize("temperature", [0.01, 1.0])
def test_zero_embeddings_give_log_of_the_number_of_candidates(temperature: float) -> None:
    positives = torch.eye(3, 5, dtype=torch.bool)
    forward = info_nce(torch.zeros(3, 4), torch.zeros(5, 4), positives, temperature, symmetric=False)
    both = info_nce(torch.zeros(3, 4), torch.zeros(5, 4), positives, temperature)
    assert forward.item() == pytest.approx(math.log(5))
    assert both.item() == pytest.approx((math.log(5) + math.log(3)) / 2)


def test_identical_orthonormal_pairs_have_the_closed_form() -> None:
    vectors = torch.eye(4)
    loss = info_nce(vectors, vectors, torch.eye(4, dtype=torch.bool), 0.5)
    assert loss.item() == pytest.approx(math.log(1 + 3 * math.exp(-2)), rel=1e-6)


def test_pairs_orthogonal_to_every_candidate_learn_nothing_yet() -> None:
    loss = info_nce(torch.eye(6)[:3], torch.eye(6)[3:], torch.eye(3, dtype=torch.bool), 0.05)
    assert loss.item() == pytest.approx(math.log(3))


def test_other_positives_are_not_in_the_denominator() -> None:
    # Two positives (cosines 1 and 0) and one negative (0): the first must not be a negative of the second.
    candidates = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    positives = torch.tensor([[True, True, False]])
    loss = info_nce(torch.tensor([[1.0, 0.0]]), candidates, positives, 1.0, symmetric=False)
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-1)) + math.log(2)) / 2)


@pytest.mark.numeric
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("hard_negatives", [0, 3])
def test_one_positive_each_equals_cross_entropy(symmetric: bool, hard_negatives: int) -> None:
    results = []
    for ours in (True, False):
        queries = unit(5, 8, seed=1).requires_grad_()
        candidates = unit(5 + hard_negatives, 8, seed=2).requires_grad_()
        if ours:
            loss = info_nce(queries, candidates, torch.eye(5, 5 + hard_negatives, dtype=torch.bool), 0.07, symmetric=symmetric)
        else:
            logits, target = queries @ candidates.T / 0.07, torch.arange(5)
            loss = functional.cross_entropy(logits, target)
            if symmetric:
                loss = (loss + functional.cross_entropy(logits.T[:5], target)) / 2
        loss.backward()
        results.append((loss.detach(), queries.grad, candidates.grad))
    for found, wanted in zip(*results, strict=True):
        assert_close(found, wanted, steps=FORWARD)


@pytest.mark.numeric
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("margin", [None, MARGIN])
@pytest.mark.parametrize("hardness", [0.0, 0.5])
def test_equals_the_slow_twin(symmetric: bool, margin: float | None, hardness: float) -> None:
    results = []
    for ours in (True, False):
        queries = unit(4, 5, 3, torch.float64).requires_grad_()
        candidates = unit(7, 5, 4, torch.float64).requires_grad_()
        temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        if ours:
            options = {"symmetric": symmetric, "false_negative_margin": margin, "hardness": hardness}
            loss = info_nce(queries, candidates, several_positives(), temperature, **options)
        else:
            loss = twin(queries, candidates, several_positives(), temperature, symmetric, margin, hardness)
        loss.backward()
        results.append((loss.detach(), queries.grad, candidates.grad, temperature.grad))
    for found, wanted in zip(*results, strict=True):
        assert_close(found, wanted, steps=FORWARD)
    if margin is not None:
        unmasked = twin(unit(4, 5, 3, torch.float64), unit(7, 5, 4, torch.float64), several_positives(), 0.2, symmetric, None, hardness)
        assert unmasked > results[0][0] + 1e-3, "the margin must matter on this data"


def test_a_query_without_negatives_learns_nothing_however_hard_they_weigh() -> None:
    queries, candidates = unit(1, 4, 7).requires_grad_(), unit(2, 4, 8)
    loss = info_nce(queries, candidates, torch.ones(1, 2, dtype=torch.bool), 0.1, symmetric=False, hardness=0.5)
    loss.backward()
    assert loss.item() == 0 and queries.grad is not None and not queries.grad.any()
    with pytest.raises(InputError, match="at least 0"):
        InfoNCE(hardness=-1)


@pytest.mark.parametrize("margin", [None, MARGIN])
def test_gradients_are_those_of_the_loss(margin: float | None) -> None:
    queries = unit(4, 3, 5, torch.float64).requires_grad_()
    candidates = unit(7, 3, 6, torch.float64).requires_grad_()
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def loss(queries: Tensor, candidates: Tensor, temperature: Tensor) -> Tensor:
        return info_nce(queries, candidates, several_positives(), temperature, false_negative_margin=margin)

    assert torch.autograd.gradcheck(loss, (queries, candidates, temperature))


def at_cosines(*cosines: float) -> Tensor:
    """Unit vectors in the plane with these cosines to (1, 0)."""
    return torch.tensor([[cosine, math.sqrt(1 - cosine**2)] for cosine in cosines])


def test_false_negative_mask_removes_exactly_what_exceeds_the_margin() -> None:
    query = torch.tensor([[1.0, 0.0]])
    # Positives 0.7 and 0.5: the limit is 0.5 + 0.1. Of the negatives 0.59 stays, 0.61 and 0.95 go, -0.2 stays.
    candidates = at_cosines(0.7, 0.5, 0.59, 0.61, 0.95, -0.2).requires_grad_()
    positives = torch.tensor([[True, True, False, False, False, False]])
    loss = info_nce(query, candidates, positives, 0.5, symmetric=False, false_negative_margin=MARGIN)
    negatives = math.exp(0.59 / 0.5) + math.exp(-0.2 / 0.5)
    expected = sum(math.log(1 + negatives / math.exp(positive / 0.5)) for positive in (0.7, 0.5)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert candidates.grad is not None
    assert candidates.grad.any(dim=1).tolist() == [True, True, True, False, False, True]


def test_false_negative_mask_uses_each_directions_own_positive() -> None:
    # Query 0 matches its positive at 0.2 and candidate 1 at 0.9: removed for query 0, and for candidate 1 only if 0.9 exceeds
    # the cosine of candidate 1 with its own query (0.95) by the margin, which it does not.
    cosines = torch.tensor([[0.2, 0.9], [0.1, 0.95]])
    loss = info_nce(cosines, torch.eye(2), torch.eye(2, dtype=torch.bool), 1.0, false_negative_margin=MARGIN)
    forward = (0.0 + math.log(1 + math.exp(0.1 - 0.95))) / 2
    backward = (math.log(1 + math.exp(0.1 - 0.2)) + math.log(1 + math.exp(0.9 - 0.95))) / 2
    assert loss.item() == pytest.approx((forward + backward) / 2, rel=1e-6)


def test_nothing_left_to_compare_with_gives_zero_loss_and_zero_gradient() -> None:
    query = torch.tensor([[1.0, 0.0]], requires_grad=True)
    candidates = at_cosines(0.1, 0.8, 0.9).requires_grad_()
    positives = torch.tensor([[True, False, False]])
    with torch.autograd.set_detect_anomaly(True):  # a NaN on the way back is an error, even one masked out later
        loss = info_nce(query, candidates, positives, 0.01, false_negative_margin=MARGIN)
        loss.backward()
    assert loss.item() == 0.0
    assert query.grad is not None and candidates.grad is not None
    assert not query.grad.any() and not candidates.grad.any()


def test_extreme_logits_stay_finite() -> None:
    queries = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    candidates = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])  # each positive is the exact opposite of its query
    loss = info_nce(queries, candidates, torch.eye(2, dtype=torch.bool), 1e-4)
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert queries.grad is not None and queries.grad.isfinite().all()


def test_half_precision_embeddings_are_compared_in_float32() -> None:
    queries, candidates, positives = unit(4, 16, 7).bfloat16(), unit(7, 16, 8).bfloat16(), several_positives()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(queries, candidates, positives, 0.02)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(twin(queries.double(), candidates.double(), positives, 0.02, True, None).item(), rel=1e-4)


def test_temperature_gradient_has_the_closed_form() -> None:
    # Loss = log(1 + exp(-2 / t)) for cosines 1 and -1, so its slope is 2 / t^2 * sigmoid(-2 / t).
    temperature = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    candidates = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    info_nce(candidates[:1], candidates, torch.tensor([[True, False]]), temperature, symmetric=False).backward()
    assert temperature.grad is not None
    assert temperature.grad.item() == pytest.approx(2 / 0.64 / (1 + math.exp(2.5)))


@pytest.mark.parametrize("margin", [None, MARGIN])
def test_order_does_not_matter(margin: float | None) -> None:
    queries, candidates, positives = unit(4, 5, 9), unit(7, 5, 10), several_positives()
    rows, columns = torch.tensor([2, 0, 3, 1]), torch.tensor([6, 3, 0, 5, 1, 4, 2])
    loss = info_nce(queries, candidates, positives, 0.1, false_negative_margin=margin)
    shuffled = info_nce(queries[rows], candidates[columns], positives[rows][:, columns], 0.1, false_negative_margin=margin)
    assert_close(shuffled, loss, steps=FORWARD)
    misaligned = info_nce(queries[rows], candidates, positives, 0.1, false_negative_margin=margin)
    assert not torch.isclose(misaligned, loss)


def test_inputs_are_not_changed() -> None:
    inputs = [unit(4, 5, 11), unit(7, 5, 12), several_positives(), torch.tensor(0.1)]
    copies = [tensor.clone() for tensor in inputs]
    info_nce(*inputs, false_negative_margin=MARGIN)
    states = unit(6, 5, 13).reshape(2, 3, 5)
    states_copy = states.clone()
    orthogonality_penalty(states)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, copies, strict=True))
    assert torch.equal(states, states_copy)


@pytest.mark.parametrize(
    ("queries", "candidates", "positives", "temperature", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), torch.eye(2, dtype=torch.bool), 0.1, "one width"),
        (torch.zeros(3), torch.zeros(2, 3), torch.eye(2, dtype=torch.bool), 0.1, "matrices"),
        (torch.zeros(0, 3), torch.zeros(2, 3), torch.zeros(0, 2, dtype=torch.bool), 0.1, "not be empty"),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.eye(3, dtype=torch.bool), 0.1, r"shape \(2, 2\)"),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.eye(2), 0.1, "must be bool"),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.eye(2, dtype=torch.bool), 0.0, "above 0"),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.eye(2, dtype=torch.bool), math.nan, "above 0"),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.eye(2, dtype=torch.bool), torch.ones(2), "one number"),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([[True, False], [False, False]]), 0.1, r"rows \[1\]"),
    ],
)
def test_mistakes_are_named(queries: Tensor, candidates: Tensor, positives: Tensor, temperature: float | Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        info_nce(queries, candidates, positives, temperature)


def test_penalty_closed_forms() -> None:
    orthogonal = 3 * torch.eye(4)[None, :3]
    equal = torch.tensor([1.0, 2.0, -1.0]).expand(2, 4, 3)
    opposite = torch.tensor([[[1.0, 1.0], [-2.0, -2.0]]])
    halfway = torch.tensor([[[1.0, 0.0], [0.5, math.sqrt(0.75)]]])  # 60 degrees: cosine 1/2
    assert orthogonality_penalty(orthogonal).item() == 0.0
    assert orthogonality_penalty(equal).item() == pytest.approx(1.0)
    assert orthogonality_penalty(opposite).item() == pytest.approx(1.0)
    assert orthogonality_penalty(halfway).item() == pytest.approx(0.25)
    assert orthogonality_penalty(torch.cat([halfway, opposite])).item() == pytest.approx((0.25 + 1.0) / 2)


def test_penalty_of_one_latent_is_zero_and_can_be_differentiated() -> None:
    states = torch.ones(2, 1, 3, requires_grad=True)
    penalty = orthogonality_penalty(states)
    penalty.backward()
    assert penalty.item() == 0.0
    assert states.grad is not None and not states.grad.any()


def test_penalty_equals_the_slow_twin() -> None:
    states = unit(6, 5, 14, torch.float64).reshape(2, 3, 5).requires_grad_()
    pairs = [(item, first, second) for item in range(2) for first in range(3) for second in range(3) if first != second]
    cosines = [functional.cosine_similarity(states[item, first], states[item, second], dim=0) for item, first, second in pairs]
    expected = sum(cosine**2 for cosine in cosines) / len(cosines)
    assert_close(orthogonality_penalty(states), expected, steps=FORWARD)
    assert torch.autograd.gradcheck(orthogonality_penalty, (states,))


@pytest.mark.parametrize("shape", [(3, 4), (0, 2, 4), (2, 0, 4)])
def test_penalty_names_a_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Latent states must be"):
        orthogonality_penalty(torch.zeros(shape))
