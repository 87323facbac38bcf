"""Writing a trained model to a file that runs without its code: ONNX, or a torch.export program."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
