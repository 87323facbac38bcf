"""Train a small model on generated shapes, print its accuracy per class, and save the run."""

from dataclasses import replace

import seewhy

data = seewhy.load("shapes:train=1000,test=500")
print(data)

recipe = replace(
    seewhy.RECIPES["demo"],
    name="shapes",
    model="speednet:width=0.25",
    epochs=3,
    augment=("crop:2", "flip"),
)
run = seewhy.fit(recipe, data, directory="runs/shapes")
print(run)

for row in sorted(run.predictions.by_class, key=lambda row: row.accuracy):
    low, high = row.interval
    print(f"{row.name:12} {row.accuracy:6.1%}  [{low:.1%}, {high:.1%}]")
