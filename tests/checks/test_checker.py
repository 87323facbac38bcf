"""`check`: any data, odd data, own checks."""

import numpy as np
import pytest
import torch

import seewhy
from seewhy.checks import CHECKS, Check, CheckInputs, Finding, NotJudged, check
from seewhy.checks.result import FOUND, NOT_JUDGED
from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((1, 3, 32, 32), np.uint8), [0]),
        (np.full((30, 3, 32, 32), 77, np.uint8), [0, 1] * 15),
        (np.random.default_rng(0).integers(0, 256, (12, 1, 8, 8), np.uint8), [0] * 12),
        (np.random.default_rng(0).integers(0, 256, (6, 3, 1, 1), np.uint8), [0, 1, 2] * 2),
    ],
    ids=["one image", "constant images", "one class", "one pixel"],
)
def test_odd_data_are_judged_or_not_but_never_fail(images: np.ndarray, labels: list[int]) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(images.shape[1], 4)
    )
    for given in (None, model):
        result = check((torch.from_numpy(images), torch.tensor(labels)), given)
        assert list(result.checks) == list(CHECKS)
        for each in result.checks.values():
            assert each.sentence
            assert each.verdict == NOT_JUDGED or each.judged
            assert each.verdict != FOUND or each.findings


def test_check_takes_what_load_takes() -> None:
    result = seewhy.check("digits", only=["class-imbalance"])
    assert (result.data, result.images) == ("digits", {"train": 1438, "test": 359})
    assert repr(result) == "DataChecks(digits: 1,438 train, 359 test images; found: nothing)"


def test_own_check_is_an_entry_of_the_table(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def long_names(inputs: CheckInputs) -> Check:
        names = inputs.splits["train"].names
        findings = tuple(
            Finding(len(name), (inputs.image(row),))
            for row, name in enumerate(names)
            if len(name) > 12
        )
        return Check("characters", judged=len(names), findings=findings)

    def never(inputs: CheckInputs) -> Check:
        raise NotJudged("it is not the season")

    monkeypatch.setitem(CHECKS, "long-names", long_names)
    monkeypatch.setitem(CHECKS, "never", never)
    result = check(data, only=["never", "long-names"])
    assert result.found == ("long-names",)
    assert result["long-names"].found == 140
    assert (result["never"].verdict, result["never"].sentence) == (
        NOT_JUDGED,
        "it is not the season",
    )


def test_unknown_check_is_an_error(data: Dataset) -> None:
    with pytest.raises(SeewhyError, match=r"unknown check 'darc' \(did you mean 'dark'\?\)"):
        check(data, only=["darc"])
