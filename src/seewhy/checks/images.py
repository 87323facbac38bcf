"""Checks of single images: dark, light, blurry, empty, gray, and files of another size or shape."""

from collections.abc import Callable

import numpy as np

from seewhy.checks.inputs import CheckInputs
from seewhy.checks.measures import MIN_SIDE
from seewhy.checks.result import Check, Finding, NotJudged
from seewhy.wording import be, counted

DARK = 0.32  # the lightest 1% of pixels are darker, see `image_measures`
LIGHT = 0.95  # the darkest 5% of pixels are lighter
BLURRY = 0.7  # of `blur_effect`
ENTROPY = 2.0  # bits
GRAY = 0.01  # mean range over the channels, for pixels in [0, 1]
ASPECT_RATIO = 0.35  # shorter side relative to the longer one
SIZE_FACTOR = 4.0  # smallest factor between a typical size and an odd one
TYPICAL = 0.5  # fraction of the images from which what is found is not odd
_FAR_OUT = 3.0  # interquartile ranges beyond the quartiles (Tukey 1977)


def dark(inputs: CheckInputs) -> Check:
    """Images of which 99% of the pixels are darker than 0.32."""
    return _beyond(
        inputs,
        inputs.measures["lightest"],
        DARK,
        "99th percentile of brightness",
        "dark: hardly anything can be seen",
        below=True,
    )


def light(inputs: CheckInputs) -> Check:
    """Images of which 95% of the pixels are lighter than 0.95."""
    return _beyond(
        inputs,
        inputs.measures["darkest"],
        LIGHT,
        "5th percentile of brightness",
        "overexposed, or empty and white",
    )


def blurry(inputs: CheckInputs) -> Check:
    """Images that hardly change when they are blurred."""
    _check_side(inputs)
    return _beyond(
        inputs,
        inputs.measures["blur"],
        BLURRY,
        "blur effect, 0 to 1",
        "blurry or enlarged",
    )


def low_information(inputs: CheckInputs) -> Check:
    """Images whose brightness has an entropy of less than 2 bits."""
    _check_side(inputs)
    return _beyond(
        inputs,
        inputs.measures["entropy"],
        ENTROPY,
        "entropy of brightness, bits",
        "nearly empty: a few levels of brightness make up all pixels",
        below=True,
    )


def gray(inputs: CheckInputs) -> Check:
    """Gray images among color images."""
    if "saturation" not in inputs.measures:
        raise NotJudged("all images are gray")
    return _beyond(
        inputs,
        inputs.measures["saturation"],
        GRAY,
        "mean saturation, 0 to 1",
        "gray among color images",
        below=True,
    )


def odd_size(inputs: CheckInputs) -> Check:
    """Files whose images are much smaller or larger than those of the others."""
    originals = inputs.originals
    sides = np.sqrt(originals["height"].astype(float) * originals["width"])
    typical = float(np.median(sides))
    logs = np.log(sides / typical)
    first, third = np.quantile(logs, (0.25, 0.75))
    reach = _FAR_OUT * (third - first)
    limit = max(SIZE_FACTOR, float(np.exp(max(-(first - reach), third + reach))))
    factors = np.exp(np.abs(logs))
    note = [f"{row['width']}x{row['height']} pixels" for row in originals]
    return _beyond(
        inputs,
        factors,
        limit,
        f"factor to the median side of {typical:.0f} pixels",
        f"much smaller or larger than the median side of {typical:.0f} pixels",
        note=note.__getitem__,
    )


def odd_aspect_ratio(inputs: CheckInputs) -> Check:
    """Files whose images are much longer in one direction."""
    originals = inputs.originals
    sides = np.stack([originals["height"], originals["width"]]).astype(float)
    note = [f"{row['width']}x{row['height']} pixels" for row in originals]
    return _beyond(
        inputs,
        sides.min(0) / sides.max(0),
        ASPECT_RATIO,
        "shorter side / longer side",
        "long and narrow: a square crop loses most of the picture",
        below=True,
        note=note.__getitem__,
    )


def _check_side(inputs: CheckInputs) -> None:
    if min(inputs.data.image_shape[1:]) < MIN_SIDE:
        raise NotJudged(f"images of less than {MIN_SIDE} pixels a side are too small")


def _beyond(
    inputs: CheckInputs,
    values: np.ndarray,
    threshold: float,
    measure: str,
    predicate: str,
    *,
    below: bool = False,
    note: Callable[[int], str] | None = None,
) -> Check:
    """A check that finds the images whose value (N,) is beyond a threshold.

    Raises NotJudged if at least half of them are: then it is how these images are.
    """
    values = values.astype(float)
    beyond = values < threshold if below else values > threshold
    found = np.flatnonzero(beyond)
    if len(found) >= TYPICAL * len(values) and len(values) > 1:
        relation = "below" if below else "above"
        raise NotJudged(
            f"{measure} is {relation} {threshold:.3g} in {100 * len(found) / len(values):.0f}% of "
            "the images, so it is how they are"
        )
    order = found[np.argsort(values[found] if below else -values[found], kind="stable")]
    findings = tuple(
        Finding(float(values[row]), (inputs.image(row),), note="" if note is None else note(row))
        for row in order.tolist()
    )
    total = counted(len(values), "image")
    verb = be(len(found))
    sentence = f"{len(found):,} of {total} {verb} {predicate}."
    if not len(found):
        sentence = f"No image is {predicate.partition(':')[0]}."
    return Check(
        measure,
        judged=len(values),
        value=float(values.min() if below else values.max()),
        threshold=threshold,
        below=below,
        findings=findings,
        sentence=sentence,
    )
