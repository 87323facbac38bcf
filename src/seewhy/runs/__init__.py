"""Runs: training a recipe, the run directory, and the use of a finished run."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
