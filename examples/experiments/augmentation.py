"""Compare cutout with crop and flip."""

from dataclasses import replace

from base import BASE, experiment, with_found_lr

import seewhy

AUGMENTATIONS = [(), ("crop:2", "flip"), ("cutout:8",), ("crop:2", "flip", "cutout:8")]

if __name__ == "__main__":
    experiment(
        "augmentation",
        lambda data: seewhy.experiments.recipe_grid(
            with_found_lr(replace(BASE, epochs=8), data), {"augment": AUGMENTATIONS}
        ),
        ("accuracy",),
    )
