"""Figures: arrays in, a matplotlib Figure out."""

from saliency_lib.core.optional import optional

with optional("notebooks"):  # matplotlib
    from saliency_lib.figures.curves import correlations as correlations
    from saliency_lib.figures.curves import draw_bands as draw_bands
    from saliency_lib.figures.curves import mean_curves as mean_curves
    from saliency_lib.figures.curves import panels as panels
    from saliency_lib.figures.curves import sample_quality as sample_quality
    from saliency_lib.figures.curves import training_history as training_history
    from saliency_lib.figures.forest import claims_by_data as claims_by_data
    from saliency_lib.figures.maps import draw_image as draw_image
    from saliency_lib.figures.maps import draw_map as draw_map
    from saliency_lib.figures.maps import gallery as gallery
    from saliency_lib.figures.style import COLOURS as COLOURS
    from saliency_lib.figures.style import colour as colour
    from saliency_lib.figures.style import display_name as display_name
    from saliency_lib.figures.style import line_style as line_style
    from saliency_lib.figures.style import shorten as shorten
    from saliency_lib.figures.tables import against_reported as against_reported
    from saliency_lib.figures.tables import critical_difference_diagram as critical_difference_diagram
    from saliency_lib.figures.tables import draw_intervals as draw_intervals
    from saliency_lib.figures.tables import heatmap as heatmap
    from saliency_lib.figures.tables import intervals as intervals
    from saliency_lib.figures.tables import intervals_by_training as intervals_by_training
    from saliency_lib.figures.tables import ratios as ratios
    from saliency_lib.figures.texts import highlighted as highlighted
    from saliency_lib.figures.texts import highlighted_html as highlighted_html
    from saliency_lib.figures.verdicts import effects as effects
    from saliency_lib.figures.verdicts import verdict_matrix as verdict_matrix
