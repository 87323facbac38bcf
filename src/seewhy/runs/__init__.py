"""Runs: training a recipe, the run directory, and what a finished run is used for."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
