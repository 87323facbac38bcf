"""Predictions and features of a stream, as CSV, JSON lines, and arrays."""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

import numpy as np
from torch import Tensor

from seewhy.errors import SeewhyError
from seewhy.escaping import csv_text, json_text, visible
from seewhy.runs.prediction_stream import ImagePrediction


def predictions_csv(predictions: Sequence[ImagePrediction], header: bool) -> str:
    """One row per image and class, best first, as in predictions.csv of `seewhy explain`.

    With a threshold, the column `abstained` is true or false, the same in all rows of an image. If
    an image has any number of labels, the column `predicted` says whether it has that of the row.
    """
    abstains = any(prediction.abstained is not None for prediction in predictions)
    labels = any(prediction.labels is not None for prediction in predictions)
    rows = [
        [prediction.image, rank, row.name, f"{row.probability:.6f}"]
        + [str(bool(prediction.abstained)).lower()] * abstains
        + [str(row.name in (prediction.labels or ())).lower()] * labels
        for prediction in predictions
        for rank, row in enumerate(prediction.top, 1)
    ]
    columns = ["image", "rank", "class", "probability"]
    columns += ["abstained"] * abstains + ["predicted"] * labels
    text = csv_text(columns, rows).replace("\r\n", "\n")
    return text if header else text.partition("\n")[2]


def predictions_jsonl(predictions: Sequence[ImagePrediction], header: bool) -> str:
    """One JSON object per image, in a line of its own.

    `abstained` only with a threshold, and `labels` only if an image has any number of them.
    """
    rows = [asdict(each) for each in predictions]
    for row in rows:
        for name in ("abstained", "labels"):
            if row[name] is None:
                del row[name]
    return "".join(json_text(row) + "\n" for row in rows)


FORMATS: dict[str, Callable[[Sequence[ImagePrediction], bool], str]] = {
    "csv": predictions_csv,
    "jsonl": predictions_jsonl,
}


FEATURE_SUFFIXES = (".npy", ".npz", ".csv")


class FeatureFile:
    """Features of images, written block by block; `.npy` has its names in a text file beside it.

    Args:
        path: The file to write, whose suffix determines the format.
    """

    def __init__(self, path: Path, suffix: str) -> None:
        self.path, self.suffix = path, suffix
        self.names: list[str] = []
        self.width = 0
        self.file: IO[bytes] = path.open("w+b")

    def add(self, names: Sequence[str], features: Tensor) -> None:
        """Write features (n, D) float32 of images with these names."""
        rows = features.numpy().astype("<f4", copy=False)
        if not self.names:
            self.width = rows.shape[1]
            self._write_header()
        if self.suffix == ".csv":
            lines = [[name, *map(float, row)] for name, row in zip(names, rows, strict=True)]
            text = csv_text([], lines).partition("\r\n")[2]
            self.file.write(text.replace("\r\n", "\n").encode())
        else:
            self.file.write(rows.tobytes())
        self.names += names

    def finish(self) -> None:
        """Complete the file."""
        if self.suffix == ".csv":
            self.file.close()
            return
        self.file.seek(0)
        self._write_header()  # of the same length, because numpy leaves room for more rows
        self.file.close()
        if self.suffix == ".npz":
            rows = self.path.with_name(self.path.name + ".rows")
            self.path.replace(rows)
            try:
                with zipfile.ZipFile(self.path, "w") as archive:
                    archive.write(rows, "features.npy")
                    with archive.open("names.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, np.array(self.names), allow_pickle=False)
            finally:
                rows.unlink()

    def _write_header(self) -> None:
        if self.suffix == ".csv":
            columns = [f"feature_{index}" for index in range(self.width)]
            self.file.write(csv_text(["image", *columns], []).replace("\r\n", "\n").encode())
            return
        shape = (len(self.names), self.width)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, header)


def check_feature_path(path: Path) -> str:
    """The suffix of a file of features. Raises SeewhyError for another one."""
    if path.suffix not in FEATURE_SUFFIXES:
        raise SeewhyError(
            f"features are written to {', '.join(FEATURE_SUFFIXES[:-1])} or "
            f"{FEATURE_SUFFIXES[-1]}, found {path.name!r}"
        )
    return path.suffix


def names_text(names: Sequence[str]) -> str:
    """One name per line."""
    return "".join(visible(name) + "\n" for name in names)
