"""Compare optimizers, each with its own learning rate, by training loss, accuracy and memory."""

from base import BASE, experiment

import seewhy

OPTIMIZERS = ["gd", "sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw", "muon"]

if __name__ == "__main__":
    experiment(
        "optimizers",
        lambda data: seewhy.experiments.recipe_grid(BASE, {"optimizer": OPTIMIZERS}),
        ("train_loss", "accuracy"),
    )
