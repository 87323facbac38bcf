"""Optimizers by training loss, test accuracy and memory, each with its own learning rate."""

from base import BASE, experiment

import seewhy

OPTIMIZERS = ["gd", "sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw", "muon"]

if __name__ == "__main__":
    experiment(
        "optimizers",
        lambda data: seewhy.experiments.recipe_grid(BASE, {"optimizer": OPTIMIZERS}),
        ("train_loss", "accuracy"),
    )
