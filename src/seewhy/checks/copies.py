"""Checks of copies: images with equal pixels, and near-duplicates, within and across splits."""

from collections.abc import Sequence

from seewhy.checks.inputs import CheckInputs
from seewhy.checks.result import Check, Finding
from seewhy.data.duplicates import near_duplicates
from seewhy.data.statistics import exact_duplicates
from seewhy.wording import be, counted, have

SIMILARITY = 0.9  # of near-duplicates, see `near_duplicates`
DIFFERENT = "different labels"


def duplicates(inputs: CheckInputs) -> Check:
    """Images with equal pixels."""
    groups = exact_duplicates(inputs.splits).groups
    # with the first one, in train if any is: then each copy in another split is counted
    pairs = [(first, copy) for first, *others in groups for copy in others]
    findings = [_finding(inputs, first, second, 0.0) for first, second in pairs]
    total = len(inputs.labels)
    copies = len(pairs)
    sentence = "No two images have equal pixels."
    if findings:
        verb = have(copies)
        sentence = f"{copies:,} of {counted(total, 'image')} {verb} the pixels of another image"
        sentence += f"{_consequences(findings)}."
    return Check(
        "mean difference of pixels, 0 to 1",
        kind="pair",
        judged=total,
        value=0.0 if findings else None,
        findings=_ordered(findings),
        sentence=sentence,
    )


def near_duplicate_images(inputs: CheckInputs) -> Check:
    """Images that are nearly the same: encoded again, brightened, mirrored, cropped a little."""
    splits = inputs.splits
    found = near_duplicates(splits, SIMILARITY, within=tuple(splits))
    groups = exact_duplicates(splits).groups
    group_of = {member: number for number, group in enumerate(groups) for member in group}
    findings = []
    for pair in found:
        one, other = group_of.get(pair.first, -1), group_of.get(pair.second, -2)
        if one != other:  # the others have equal pixels
            note = "mirrored" if pair.mirrored else ""
            findings.append(_finding(inputs, pair.first, pair.second, pair.difference, note))
    sentence = "No two images are nearly the same."
    if findings:
        verb = be(len(findings))
        sentence = f"{counted(len(findings), 'pair')} of images {verb} nearly the same"
        sentence += f"{_consequences(findings)}."
    return Check(
        "mean difference of 32x32 thumbnails, 0 to 1",
        kind="pair",
        judged=len(inputs.labels),
        value=min((finding.value for finding in findings), default=None),
        findings=_ordered(findings),
        sentence=sentence,
    )


def _finding(
    inputs: CheckInputs,
    first: tuple[str, int],
    second: tuple[str, int],
    difference: float,
    note: str = "",
) -> Finding:
    images = (inputs.image_in(*first), inputs.image_in(*second))
    labels = "" if images[0].label == images[1].label else DIFFERENT
    return Finding(difference, images, note=", ".join(filter(None, (note, labels))))


def _ordered(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Those across splits first, then those with different labels, then the most similar."""
    return tuple(
        sorted(
            findings,
            key=lambda each: (not _across(each), DIFFERENT not in each.note, each.value),
        )
    )


def _across(finding: Finding) -> bool:
    first, second = finding.images
    return first.split != second.split


def _consequences(findings: Sequence[Finding]) -> str:
    """How many pairs are across splits, and how many have different labels."""
    across = sum(map(_across, findings))
    different = sum(DIFFERENT in each.note for each in findings)
    parts = []
    if across:
        parts.append(f"{across:,} across splits, where they inflate the accuracy")
    if different:
        parts.append(f"{different:,} with different labels")
    return f", {' and '.join(parts)}" if parts else ""
