"""Effect of label smoothing on accuracy and calibration."""

from base import BASE, experiment, with_found_lr

import seewhy

SMOOTHINGS = [0.0, 0.1, 0.2]

if __name__ == "__main__":
    experiment(
        "label-smoothing",
        lambda data: seewhy.experiments.recipe_grid(
            with_found_lr(BASE, data), {"label_smoothing": SMOOTHINGS}
        ),
        ("accuracy", "calibration_error", "test_nll"),
    )
