"""Images per second of predicting image files: decoding and the network, apart and together.

`python -m benchmarks.prediction WEIGHTS FOLDER`: published weights of EfficientNet-Lite0, and
photographs.
"""

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import torch

from benchmarks.results import Row, keep
from seewhy.data.folders import image_files
from seewhy.models.classifier import pretrained_classifier
from seewhy.models.inference import compute_logits
from seewhy.runs.prediction_stream import BLOCK, predict_stream, read_image

REPEATS = 3


def main(weights: str, folder: str) -> None:
    """Measure in turn and save."""
    classifier = pretrained_classifier(f"efficientnet-lite0:weights={weights}")
    files = image_files(Path(folder))

    def decode() -> list[torch.Tensor]:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return list(threads.map(lambda path: read_image(classifier, path), files))

    pixels = torch.stack(decode())
    calls: dict[str, Callable[[], object]] = {
        "decoding alone": decode,
        "the network alone": lambda: [
            compute_logits(classifier, block) for block in pixels.split(BLOCK)
        ],
        "both": lambda: list(predict_stream(classifier, files)),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(REPEATS):
        for name, call in calls.items():
            began, cpu = time.perf_counter(), time.process_time()
            call()
            times[name].append((time.perf_counter() - began, time.process_time() - cpu))
    how = (
        f"`benchmarks/prediction.py`, {len(files)} photographs, {torch.get_num_threads()} threads, "
        f"median of {REPEATS} interleaved repeats"
    )
    rows = []
    for name, spent in times.items():
        seconds, cpu = (median(column) / len(files) for column in zip(*spent, strict=True))
        value = f"{1 / seconds:.0f} images/s, {1000 * cpu:.1f} ms of processor time per image"
        rows.append(Row(name, value, how))
    keep("prediction", "Predicting photographs with EfficientNet-Lite0 at 224x224", rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
