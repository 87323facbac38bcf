"""What checks find: findings with images, a verdict for each check, and all of a dataset."""

from collections.abc import Mapping
from dataclasses import dataclass

from seewhy.wording import counted_splits

FOUND, OK, NOT_JUDGED = "found", "ok", "not judged"  # verdicts


@dataclass(frozen=True)
class ImageName:
    """An image of a dataset."""

    split: str
    index: int
    file: str
    label: str


@dataclass(frozen=True)
class Finding:
    """What a check found: one image, a pair of images, a class, a property, or a split."""

    value: float  # in the unit of the threshold
    images: tuple[ImageName, ...] = ()
    subject: str = ""  # name of a class, a property or a split
    note: str = ""  # for people, such as the label that is suggested


@dataclass(frozen=True)
class Check:
    """The verdict of one check."""

    measure: str  # what is measured, and in which unit
    kind: str = "image"  # what is judged: "image", "pair", "class", "property" or "split"
    judged: int = 0  # number of them
    value: float | None = None  # the most extreme one that was measured
    threshold: float | None = None
    below: bool = False  # whether values below the threshold are found, instead of those above
    findings: tuple[Finding, ...] = ()  # the most extreme first
    sentence: str = ""  # the result, or why it is not judged
    interval: tuple[float, float] | None = None  # 95%, of the value

    @property
    def verdict(self) -> str:
        """FOUND, OK, or NOT_JUDGED where nothing was judged."""
        return FOUND if self.findings else OK if self.judged else NOT_JUDGED

    @property
    def found(self) -> int:
        """Number of findings."""
        return len(self.findings)


@dataclass(frozen=True)
class DataChecks:
    """The verdicts of all checks on a dataset, by their names in CHECKS."""

    data: str  # name of the dataset
    images: Mapping[str, int]  # number of images by split
    classes: tuple[str, ...]
    model: str  # of the features; empty without one
    checks: Mapping[str, Check]

    @property
    def found(self) -> tuple[str, ...]:
        """The names of the checks that found something."""
        return tuple(name for name, check in self.checks.items() if check.verdict == FOUND)

    def __getitem__(self, name: str) -> Check:
        return self.checks[name]

    def __repr__(self) -> str:
        found = ", ".join(self.found) or "nothing"
        return f"DataChecks({self.data}: {counted_splits(self.images)}; found: {found})"


class NotJudged(Exception):
    """Raised by a check that cannot judge the data; the text is the reason."""
