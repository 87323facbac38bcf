"""Data sets: where they come from, what is in them."""

from seewhy.data.dataset import Dataset, Split, class_counts, class_weights
from seewhy.data.description import Description, describe
from seewhy.data.sources import SOURCES, load
from seewhy.data.statistics import channel_statistics, exact_duplicates

__all__ = [
    "SOURCES",
    "Dataset",
    "Description",
    "Split",
    "channel_statistics",
    "class_counts",
    "class_weights",
    "describe",
    "exact_duplicates",
    "load",
]
