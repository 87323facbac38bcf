"""Compare step, one-cycle and constant schedules with the same peak learning rate."""

from base import BASE, experiment, with_found_lr

import seewhy

SCHEDULES = ["constant", "step", "one-cycle"]

if __name__ == "__main__":
    experiment(
        "schedules",
        lambda data: seewhy.experiments.recipe_grid(
            with_found_lr(BASE, data), {"schedule": SCHEDULES}
        ),
        ("accuracy", "train_loss"),
    )
