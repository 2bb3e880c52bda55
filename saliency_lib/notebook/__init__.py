"""What a notebook uses: checked parameters, display, kept results, the explorer."""

import lazy_loader

from saliency_lib.core.optional import need

for _package in ("IPython", "ipywidgets", "matplotlib"):
    need(_package, extra="notebooks")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
