"""What `seewhy data` says: sizes, pixel statistics, class counts, duplicates."""

from dataclasses import dataclass

from torch import Tensor

from seewhy.data.dataset import Dataset, class_counts
from seewhy.data.statistics import ChannelStatistics, Duplicates, channel_statistics, exact_duplicates


@dataclass(frozen=True, eq=False)
class Description:
    """A data set in numbers; the dictionaries go by split: train, test and, where there is one, validation."""

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]  # (C, H, W)
    images: dict[str, int]
    pixels: dict[str, ChannelStatistics]
    counts: dict[str, Tensor]  # (K,) int64
    duplicates: Duplicates
    skipped: tuple[str, ...]


def describe(data: Dataset) -> Description:
    """Read every image once or twice and describe the data set."""
    splits = data.splits
    return Description(
        name=data.name,
        classes=data.classes,
        image_shape=data.image_shape,
        images={name: len(split) for name, split in splits.items()},
        pixels={name: channel_statistics(split) for name, split in splits.items()},
        counts={name: class_counts(split, len(data.classes)) for name, split in splits.items()},
        duplicates=exact_duplicates(splits),
        skipped=data.skipped,
    )
