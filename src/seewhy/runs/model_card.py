"""The README.md of a run directory: what was trained, on what, how well, and how to use it."""

from seewhy.runs.run import Run
from seewhy.train.recipe import to_toml


def model_card(run: Run) -> str:
    """The card as Markdown."""
    result = run.result
    if result is None:
        raise ValueError("a model card is of a finished run")
    data = run.setting["data"]
    low, high = (100 * bound for bound in result.interval)
    channels, height, width = run.image_shape
    read = (
        "The test images were watched during training, but nothing was selected on them: this is the last epoch."
        if result.selected_on == "last epoch"
        else f"Epoch {result.selected_epoch:g} was selected on a validation split; the test images were read once."
    )
    views = ""
    if run.recipe.tta != "none":
        views = f" With test-time augmentation {run.recipe.tta}; without, {100 * result.plain_accuracy:.2f}%."
    where = f"{run.setting['device']} ({run.setting['precision']})"
    return f"""# {run.recipe.name} on {data["name"]}

**{100 * result.accuracy:.2f}%** of {result.images:,} test images are classified correctly
(95% interval {low:.2f} to {high:.2f}%). {read}{views}

| | |
|---|---|
| network | `{run.recipe.model}`, {result.parameters:,} parameters |
| input | {channels} x {height} x {width}, pixels in [0, 1]; normalization is inside the network |
| classes | {", ".join(run.classes)} |
| training | {result.epochs:g} epochs in {result.seconds:.0f} s on {where} |
| data | {data["name"]}, fingerprint `{data["fingerprint"]}` |

![Loss, accuracy and learning rate](figures/curves.svg)

## Use it

    seewhy predict THIS_DIRECTORY image.png
    seewhy evaluate THIS_DIRECTORY --data DATA

```python
import seewhy

run = seewhy.open_run("THIS_DIRECTORY")
seewhy.predict(run, ["image.png"])
```

## How it was trained

```toml
{to_toml(run.recipe)}```
"""
