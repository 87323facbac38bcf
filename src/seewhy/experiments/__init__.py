"""Trainings side by side: recipes that differ, their runs over several seeds, and which differences are real."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
