"""A run to export; it is trained once."""

from dataclasses import replace

import pytest

from seewhy.data.dataset import Dataset
from seewhy.runs.run import Run
from seewhy.runs.training import fit
from seewhy.train.recipe import Recipe


@pytest.fixture(scope="session")
def run(recipe: Recipe, data: Dataset) -> Run:
    """A run with errors and test-time augmentation, on data made in memory."""
    run = fit(replace(recipe, epochs=1, tta="flip"), data, quiet=True)
    assert run.result is not None
    assert run.result.accuracy < 1
    return run
