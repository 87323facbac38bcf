"""Models: images (N, C, H, W) float in [0, 1] in, logits (N, K) out, normalization inside."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
