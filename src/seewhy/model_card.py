"""The README.md of a run directory: what was trained, on what, how well, and how to use it."""

from seewhy.run import Run
from seewhy.train.recipe import to_toml


def model_card(run: Run) -> str:
    """The card as Markdown."""
    summary = run.summary
    low, high = (100 * bound for bound in summary["interval"])
    channels, height, width = run.image_shape
    read = (
        "The test images were watched during training, but nothing was selected on them: this is the last epoch."
        if summary["selected_on"] == "last epoch"
        else "The epoch was selected on a validation split; the test images were read once."
    )
    training = f"{summary['epochs']:g} epochs in {summary['seconds']:.0f} s on {summary['device']} ({summary['precision']})"
    return f"""# {run.recipe.name} on {summary["data"]}

**{100 * summary["accuracy"]:.2f} %** of {summary["images"]:,} test images are classified correctly
(95 % interval {low:.2f} to {high:.2f} %). {read}

| | |
|---|---|
| network | `{run.recipe.model}`, {summary["parameters"]:,} parameters |
| input | {channels} x {height} x {width}, pixels in [0, 1]; normalisation is inside the network |
| classes | {", ".join(run.classes)} |
| training | {training} |
| data | {summary["data"]}, fingerprint `{summary["fingerprint"]}` |

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
