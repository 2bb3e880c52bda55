"""Training: objectives, and the loop that minimises them. Importing this fills OBJECTIVES."""

from saliency_lib.core.plugins import accept_plugins
from saliency_lib.training import density, objectives
from saliency_lib.training.table import OBJECTIVES, Objective

__all__ = ["OBJECTIVES", "Objective", "density", "objectives"]

accept_plugins(OBJECTIVES)
