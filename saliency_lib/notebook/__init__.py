"""What a notebook uses: checked parameters, display, kept results, the explorer."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
