"""Compare SGD, Adam with an L2 penalty, and AdamW. Adam and AdamW share a learning rate."""

from dataclasses import replace

from base import BASE, experiment, with_found_lr

import seewhy


def recipes(data: seewhy.Dataset) -> dict[str, seewhy.Recipe]:
    """SGD; Adam with and without an L2 penalty; AdamW with low and high weight decay."""
    adam = with_found_lr(replace(BASE, optimizer="adam", weight_decay=0), data)
    return {
        "sgd with momentum": BASE,
        "adam": adam,
        "adam, L2 5e-4": replace(adam, weight_decay=5e-4),
        "adamw, decay 0.05": replace(adam, optimizer="adamw", weight_decay=0.05),
        "adamw, decay 0.5": replace(adam, optimizer="adamw", weight_decay=0.5),
    }


if __name__ == "__main__":
    experiment("weight-decay", recipes, ("accuracy", "train_loss"))
