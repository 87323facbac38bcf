"""Which optimizer wins on training loss, which on test accuracy, and at what memory? Each at the learning rate found for it."""

from base import BASE, experiment

import seewhy

OPTIMIZERS = ["gd", "sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw", "muon"]

if __name__ == "__main__":
    experiment(
        "optimizers",
        lambda data: seewhy.experiments.recipe_grid(BASE, {"optimizer": OPTIMIZERS}),
        ("train_loss", "accuracy"),
    )
