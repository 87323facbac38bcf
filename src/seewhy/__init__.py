"""Trains image classifiers fast, then shows why they are right and why they are wrong.

    data = seewhy.load("cifar10")
    run = seewhy.fit(seewhy.RECIPES["davidnet-24"], data)

Names are imported on first use, so `import seewhy` is fast. Other functions are in the subpackages,
such as `seewhy.attribution.pointing_game`.
"""

import lazy_loader

from seewhy._ipython import register_formatters

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

register_formatters()
