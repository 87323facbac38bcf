"""Step or one-cycle? The same peak learning rate, in one that stays, one that steps, and one that rises and falls."""

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
