"""Models: images (N, C, H, W) float in [0, 1] in, logits (N, K) out, normalisation inside."""

from seewhy.models.inference import device_of, evaluating, logits
from seewhy.models.normalise import Normalise, normalise_for
from seewhy.models.summary import Layer, Summary, format_summary, summary
from seewhy.models.table import MODELS, blank_sample, blueprint, build

__all__ = [
    "MODELS",
    "Layer",
    "Normalise",
    "Summary",
    "blank_sample",
    "blueprint",
    "build",
    "device_of",
    "evaluating",
    "format_summary",
    "logits",
    "normalise_for",
    "summary",
]
