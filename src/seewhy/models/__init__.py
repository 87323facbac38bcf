"""Models: from images (N, C, H, W) float in [0, 1] to logits (N, K), normalization included."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
