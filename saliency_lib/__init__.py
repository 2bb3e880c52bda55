"""The saliency compendium: train, explain, measure and draw five saliency-map papers as one system.

`import saliency_lib as sl` loads nothing heavy. Each name in `__init__.pyi` is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
