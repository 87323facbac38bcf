"""Why a network sees what it sees: maps of evidence, and how far each can be trusted."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
