"""Images to label: a region that training lacks, uncertain, typical and different ones."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from seewhy.diagnosis import selection
from seewhy.diagnosis.selection import select_images
from seewhy.errors import SeewhyError


def cluster(center: list[float], count: int, seed: int, spread: float = 0.05) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(center) + spread * torch.randn(count, len(center), generator=generator)


LABELED = torch.cat([cluster([1, 0, 0, 0], 20, 0), cluster([0, 1, 0, 0], 20, 1)])
CERTAIN = torch.tensor([0.98, 0.02])


def test_region_that_training_lacks_is_selected_first() -> None:
    """The model is as certain there as elsewhere, and an outlier is farther away."""
    pool = torch.cat(
        [
            cluster([1, 0, 0, 0], 40, 2),
            cluster([0, 0, 1, 0], 15, 3),  # missing from training
            cluster([0, 0, 0, 3], 1, 4),  # an outlier
        ]
    )
    found = select_images(CERTAIN.expand(len(pool), 2), pool, 2, LABELED)
    assert 40 <= found.indices[0] < 55
    assert found.indices[1] == 55  # the missing region is represented by one image
    assert found.novelty.min() > 0.5


def test_uncertain_group_comes_before_a_certain_one() -> None:
    """Both are equally new and equally many; one image represents each."""
    pool = torch.cat([cluster([0, 0, 1, 0], 10, 2), cluster([0, 0, 0, 1], 10, 3)])
    for uncertain in (range(10), range(10, 20)):
        probabilities = CERTAIN.repeat(20, 1)
        probabilities[list(uncertain)] = 0.5
        found = select_images(probabilities, pool, 2, LABELED)
        assert [int(index) in uncertain for index in found.indices] == [True, False]
        torch.testing.assert_close(found.uncertainty, torch.tensor([1.0, 0.04]))


def test_selection_is_greedy_for_the_sum_of_distances() -> None:
    """Against every image tried in turn, in float64."""
    generator = torch.Generator().manual_seed(0)
    labeled, pool = (torch.randn(count, 5, generator=generator) for count in (4, 30))
    probabilities = torch.rand(30, 3, generator=generator).softmax(1)
    everything = torch.cat([labeled, pool]).double()
    unit = F.normalize(everything - everything.mean(0), dim=1)
    top = probabilities.double().sort(1).values
    weights = (1 - (top[:, -1] - top[:, -2])).clamp_min(selection.CERTAIN)

    def cost(chosen: list[int]) -> float:
        known = torch.cat([unit[:4], unit[4:][chosen]])
        return float((weights * (1 - unit[4:] @ known.T).amin(1)).sum())

    expected: list[int] = []
    for _ in range(6):
        expected.append(min(set(range(30)) - set(expected), key=lambda row: cost([*expected, row])))
    found = select_images(probabilities, pool, 6, labeled)
    assert found.indices.tolist() == expected
    assert all(a >= b for a, b in itertools.pairwise([cost(expected[:n]) for n in range(7)]))


def test_any_number_of_labels_counts_the_most_uncertain_one() -> None:
    pool = cluster([1, 0, 0, 0], 3, 0, spread=1.0)
    probabilities = torch.tensor([[0.99, 0.01], [0.9, 0.6], [0.05, 0.99]])
    found = select_images(probabilities, pool, 3, activation="sigmoid")
    order = found.indices.argsort()
    torch.testing.assert_close(found.uncertainty[order], torch.tensor([0.02, 0.8, 0.1]))
    assert found.novelty.tolist() == [1.0] * 3


def test_most_novel_of_many_images_compete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MAX_IMAGES", 5)
    pool = torch.cat([cluster([1, 0, 0, 0], 20, 2), cluster([0, 0, 1, 0], 5, 3)])
    found = select_images(CERTAIN.expand(25, 2), pool, 5, LABELED)
    assert sorted(found.indices.tolist()) == [20, 21, 22, 23, 24]
    with pytest.raises(SeewhyError, match="at most 5 images are selected at once, found 6"):
        select_images(CERTAIN.expand(25, 2), pool, 6, LABELED)


@pytest.mark.parametrize(
    ("features", "count", "message"),
    [
        (torch.zeros(3, 2), 4, "count must be from 1 to the number of images, 3, found 4"),
        (torch.zeros(2, 2), 1, r"features must be \(N, D\) of the 3 images"),
        (torch.full((3, 2), torch.nan), 1, "features are not finite"),
    ],
)
def test_errors_are_one_line(features: torch.Tensor, count: int, message: str) -> None:
    with pytest.raises(SeewhyError, match=message):
        select_images(torch.full((3, 2), 0.5), features, count)
