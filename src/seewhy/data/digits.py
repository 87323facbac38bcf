"""`digits`: the handwritten digits that are included in scikit-learn."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from seewhy.data.raw import (
    LoadRequest,
    RawDataset,
    Source,
    raw_split_from_arrays,
    reject_label_choice,
)


def digits_source() -> Source:
    """1,797 handwritten digits, 8x8, gray; included in scikit-learn (Alpaydin & Kaynak 1998)."""

    def open_(request: LoadRequest) -> RawDataset:
        reject_label_choice("digits", request)
        rows = _digits()
        # (N, 8, 8) with values from 0 to 16
        images = np.round(rows[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        split = raw_split_from_arrays(images, rows[:, 64].astype(np.int64), "digit")
        return RawDataset(tuple("0123456789"), {"train": split})

    return Source("digits", "digits", open_)


def _digits() -> Any:  # (1797, 65) float64: the pixels and the label of each image
    """scikit-learn's file, read without the package, which takes seconds to import."""
    package = importlib.util.find_spec("sklearn")
    if package is not None and package.origin is not None:
        file = Path(package.origin).with_name("datasets") / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits  # elsewhere in another version

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])
