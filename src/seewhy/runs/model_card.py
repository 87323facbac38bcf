"""The model card of a run: README.md in its directory."""

from seewhy.escaping import markdown_code, markdown_text
from seewhy.runs.result import describe_folds, describe_labels, describe_test_use, describe_uneven
from seewhy.runs.run import Run
from seewhy.train.recipe import to_toml
from seewhy.wording import counted


def model_card(run: Run) -> str:
    """The model card of a finished run, in Markdown."""
    result = run.result
    if result is None:
        raise ValueError("a model card needs a finished run")
    data = run.data_origin
    low, high = (100 * bound for bound in result.interval)
    channels, height, width = run.image_shape
    preprocessing = run.classifier.preprocessing
    part = {"crop": "the center crop", "letterbox": "the whole image, with gray beside it"}
    kept = part[preprocessing.resize]
    if preprocessing.crop != 1:
        kept += f" of {100 * preprocessing.crop:.1f}%"
    if preprocessing.interpolation != "bicubic":
        kept += f", resized with the {preprocessing.interpolation} filter"
    if result.folds:
        selection = describe_folds(result)
    elif result.test_used_by:
        selection = f"{describe_test_use(result.test_used_by)} "
        selection += f"Epoch {result.selected_epoch:g} was kept."
    elif run.recipe.epochs == 0:
        selection = "The head was fitted to the training images only."
    elif result.selected_on == "last epoch":
        selection = (
            "This is the last epoch; the test images were evaluated during training, "
            "but nothing was selected on them."
        )
    else:
        selection = (
            f"Epoch {result.selected_epoch:g} was selected on a validation split; "
            "the test images were evaluated once, at the end."
        )
    if run.recipe.tta != "none":
        selection += (
            f" With test-time augmentation {markdown_text(run.recipe.tta)}; "
            f"{100 * result.plain_accuracy:.2f}% without."
        )
    weights, weights_row = run.environment.weights, ""
    if weights is not None:
        file = markdown_code(weights.path)
        weights_row = f"| initial weights | {file}, SHA-256 `{weights.sha256}` |\n"
    trained = counted(result.epochs, "epoch") if result.epochs else "a linear probe"
    uneven = describe_uneven(result)
    if uneven:
        uneven = f"Classes are uneven: {uneven}. "
    correct, labels_row = "classified correctly", ""
    if labels := describe_labels(result):
        correct, uneven = "predicted with all labels right", f"{labels[0].upper()}{labels[1:]}. "
    if result.thresholds:
        pairs = zip(run.classes, result.thresholds, strict=True)
        listed = ", ".join(f"{markdown_text(name)} {value:.3f}" for name, value in pairs)
        labels_row = f"| thresholds | {listed} |\n"
    held_out = "" if result.folds else "test "
    hardware = markdown_text(f"{run.environment.hardware} ({run.environment.precision})")
    return f"""# {markdown_text(f"{run.recipe.name} on {data.name}")}

**{100 * result.accuracy:.2f}%** of {result.test_images:,} {held_out}images are {correct}
(95% confidence interval {low:.2f}–{high:.2f}%). {uneven}{selection}

| | |
|---|---|
| model | {markdown_code(run.recipe.model)}, {result.parameters:,} parameters |
| input | {channels} x {height} x {width}, {kept}; pixels in [0, 1], which the model normalizes |
| classes | {", ".join(map(markdown_text, run.classes))} |
| calibration | expected calibration error {100 * result.calibration_error:.1f}% |
| training | {trained} in {result.train_seconds:,.0f} s on {hardware} |
{weights_row}{labels_row}| data | {markdown_text(data.name)}, fingerprint `{data.fingerprint}` |

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
