"""`seewhy evaluate` and `seewhy predict`."""

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from seewhy.cli.arguments import DataName, parse
from seewhy.errors import SeewhyError


def evaluate(arguments: list[str]) -> None:
    """Accuracy of a run on a data set, in all and of each class."""

    def options(
        run: Annotated[Positional[Path], arg(metavar="RUN")],
        data: DataName | None = None,
        split: str = "test",
        json: bool = False,
        device: str = "auto",
    ) -> tuple[Path, str | None, str, bool, str]:
        """Accuracy of a run on the test images of a data set, with 95% intervals.

        Args:
            run: Run directory, such as runs/latest.
            data: Data set; by default the one the run was trained on.
            split: train, test, validation or all; all for a folder of new images that comes without splits.
            json: Print JSON.
            device: auto, cpu, cuda, cuda:1, mps.
        """
        return run, data, split, json, device

    directory, data, split, as_json, device = parse("evaluate", options, arguments)
    from seewhy.cli import tables
    from seewhy.diagnosis.predictions import accuracies
    from seewhy.runs.prediction import evaluate as evaluate_run
    from seewhy.runs.run import open_run
    from seewhy.train.device import find_device

    result = evaluate_run(open_run(directory, find_device(device)), data, split)
    if as_json:
        print(json_format.dumps(accuracies(result)))
    else:
        tables.print_accuracies(result, split)


def predict(arguments: list[str]) -> None:
    """Classes of image files."""

    def options(
        run: Annotated[Positional[Path], arg(metavar="RUN")],
        images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE [IMAGE …]")],
        top: int = 5,
        json: bool = False,
        device: str = "auto",
    ) -> tuple[Path, tuple[Path, ...], int, bool, str]:
        """The most probable classes of image files.

        Args:
            run: Run directory, such as runs/latest.
            images: Image files of any kind; resized and cropped as the training images were.
            top: How many classes to show.
            json: Print JSON.
            device: auto, cpu, cuda, cuda:1, mps.
        """
        return run, images, top, json, device

    directory, images, top, as_json, device = parse("predict", options, arguments)
    from seewhy.cli import tables
    from seewhy.runs.prediction import predict as predict_images
    from seewhy.runs.run import open_run
    from seewhy.train.device import find_device

    if not images:
        raise SeewhyError(
            "predict needs at least one image file, as in `seewhy predict runs/latest photo.jpg`"
        )
    answers = predict_images(open_run(directory, find_device(device)), images, top)
    if as_json:
        print(json_format.dumps([asdict(answer) for answer in answers]))
    else:
        tables.print_predictions(answers)
