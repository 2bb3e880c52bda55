"""The explorer: widgets to choose a picture, a network and methods, and to look at maps and deletion curves."""

from saliency_lib.notebook.explorer.choices import label
from saliency_lib.notebook.explorer.state import Shown, whereabouts
from saliency_lib.notebook.explorer.view import Explorer

__all__ = ["Explorer", "Shown", "label", "whereabouts"]
