"""The explorer's widgets, and what they show in pictures and in words."""

import html
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from saliency_lib.artefacts.specs import Training
from saliency_lib.attribution.table import METHODS, PARTICULAR_METHODS
from saliency_lib.figures.style import display_name
from saliency_lib.notebook.explorer.choices import decode
from saliency_lib.notebook.explorer.drawing import draw_curves, draw_maps, picture
from saliency_lib.notebook.explorer.sources import Look, Network, source_of
from saliency_lib.notebook.explorer.state import Shown, State
from saliency_lib.notebook.explorer.worker import Worker

# JupyterLab takes arrow keys and Enter for its own commands, also in a list of ours, unless the element in focus says not to.
# ipywidgets cannot set attributes, and gives its slider no label. If this does not run, only the keyboard is the poorer.
OWN_KEYS = """<style onload="this.closest('.saliency-explorer').addEventListener('focusin', ({target}) => {
target.setAttribute('data-lm-suppress-shortcuts', 'true');
if (target.matches('.noUi-handle')) target.setAttribute('aria-label', 'Opacity (%)'); });"></style>"""
FOR_TEXTS = ("integrated_gradients", "occlusion", "lime", "random")
ALERT = "background: #fdecea; color: #8a1f11; border-left: 4px solid #8a1f11; padding: 6px 10px; line-height: 1.35"


def said(error: Exception) -> str:
    """Return an error as the user reads it."""
    known = isinstance(error, (ValueError, FileNotFoundError))  # those whose messages the library writes for users
    return str(error) if known else f"{type(error).__name__}: {error}"


class Explorer:
    """Widgets that show one picture's maps and deletion curves; each also says in words what it shows.

    A worker computes while the widgets answer. Errors are shown in the widgets; those of the arguments are raised.

    Args:
        training: the network to begin with; its data set is the one to begin with.
        model: a network of your own in place of `training`: it maps pixels in [0, 1] to logits (wrap one that needs normalised
            pixels by `sl.PixelModel`, one with another output by `sl.Scalar`), on any device and of any precision.
        images: its pictures, (B, 3, H, W) or (B, 1, H, W) in [0, 1], or a list of files, of each of which the centre square is
            taken.
        classes: the names of its classes, one per logit; None for numbers.
        side: of the squares of files, in pixels; None for 224.
        image: number of the test image, or of your picture, to begin with.
        methods: names in METHODS.
        options: per method its options, in place of those in `state.QUICK`.
        steps: strides of the deletion curve.
        seed: fixes the methods' random numbers.

    Raises:
        ValueError: an unknown method or option; images outside [0, 1] or a file that cannot be read; a count of names that is
            not that of the logits; a model that does not take the first picture, or returns something else than logits.
    """

    def __init__(
        self,
        training: Training | None = None,
        *,
        model: nn.Module | None = None,
        images: Tensor | Sequence[str | Path] | None = None,
        classes: Sequence[str] | None = None,
        side: int | None = None,
        image: int = 0,
        methods: Sequence[str] = ("gradient", "integrated_gradients", "gradcam", "random", "edges"),
        options: Mapping[str, Mapping] | None = None,
        steps: int = 28,
        seed: int = 0,
    ):
        for name in methods:
            METHODS[name]
        self.source = source_of(training, model, images, classes, side)
        self.state = State(self.source, options, steps, seed)
        for name in methods:
            METHODS.check_options(name, self.state.options.get(name, {}))
        if not 0 <= image <= self.source.last:
            raise ValueError(f"image must be the number of a picture, from 0 to {self.source.last}, got {image}")
        self._methods = {False: tuple(methods), True: FOR_TEXTS}  # that are chosen first, of images and of texts
        self._own: tuple[str, Image.Image | str] | None = None
        self._offered, self._choices = "", dict[str, Network]()  # the data set, and its networks
        self._drawing = threading.RLock()
        self._worker = Worker(self._failed, lambda: self._busy("Stopped."))
        self._make_widgets(image, methods)
        self._began = self._choice()
        self._watch()
        self.refresh()

    def _make_widgets(self, image: int, methods: Sequence[str]) -> None:
        wide = {"width": "auto"}
        same: dict[str, Any] = {"layout": wide, "style": {"description_width": "100px"}}
        source = self.source
        self.dataset = widgets.Dropdown(options=source.data_sets(), value=source.dataset, description="Data set", **same)
        self.number = widgets.BoundedIntText(value=image, min=0, max=source.last, description=source.picture, **same)
        self.upload = widgets.FileUpload(accept=".png,.jpg,.jpeg", description="Upload a PNG or JPEG", layout=wide)
        words = "your own words, then Enter"
        self.sentence = widgets.Text(description="Sentence", placeholder=words, continuous_update=False, **same)
        self.network = widgets.Dropdown(description="Network", **same)
        self.target = widgets.Dropdown(description="Class", **same)
        self.methods = widgets.SelectMultiple(options=list(METHODS), value=tuple(methods), rows=9, description="Methods", **same)
        self.opacity = widgets.IntSlider(value=70, max=100, step=5, description="Opacity (%)", continuous_update=False, **same)
        self.delete = widgets.Button(description="Deletion curve", button_style="primary", layout={"flex": "1 1 auto"})
        self.stop = widgets.Button(description="Stop", layout={"flex": "0 1 90px"})
        self.progress = widgets.IntProgress(max=self.state.steps + 1, description="Progress", **same)
        self.activity, self.problem, self.words, self.maps, self.curves = (widgets.HTML() for _ in range(5))
        controls = [self.dataset, self.number, self.upload, self.sentence, self.network, self.target, self.methods, self.opacity]
        controls += [widgets.HBox([self.delete, self.stop]), self.progress, self.activity, self.problem]
        controls += [widgets.HTML(OWN_KEYS)]
        left = widgets.VBox(controls, layout={"flex": "1 1 300px", "max_width": "420px", "padding": "0 12px 0 0"})
        right = widgets.VBox([self.maps, self.curves, self.words], layout={"flex": "3 1 460px", "max_width": "760px"})
        self.box = widgets.HBox([left, right], layout={"flex_flow": "row wrap", "align_items": "flex-start"})
        self.box.add_class("saliency-explorer")

    def _watch(self) -> None:
        for widget in (self.dataset, self.number):
            widget.observe(self._from_data_set, "value")
        for widget in (self.network, self.target, self.methods):
            widget.observe(self._changed, "value")
        self.upload.observe(self._receive, "value")
        self.sentence.observe(self._receive_sentence, "value")
        self.opacity.observe(self._draw_maps, "value")
        self.delete.on_click(lambda button: self.compute_deletion())
        self.stop.on_click(lambda button: self._worker.stop())

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, object]:
        shown = self.box._repr_mimebundle_()
        return shown | {"text/plain": "The explorer's widgets; they need a running kernel: run this notebook in JupyterLab."}

    # What the user does.

    def _changed(self, change: Mapping) -> None:
        if not self._worker.is_here():  # the explorer sets choices too
            self.refresh()

    def _from_data_set(self, change: Mapping) -> None:
        self._own, self.sentence.value = None, ""
        self._changed(change)

    def _receive_sentence(self, change: Mapping) -> None:
        if change["new"].strip():
            self._own = ("your sentence", change["new"])
            self.refresh()

    def _receive(self, change: Mapping) -> None:
        if not change["new"]:
            return
        file = change["new"][0]
        self.upload.value = ()  # so that the same file can be chosen again
        try:
            self._own = (str(file["name"]), decode(bytes(file["content"])))
        except ValueError as error:
            self._tell(said(error))
        else:
            self.refresh()

    def refresh(self) -> None:
        """Bring what is shown in line with the widgets."""
        self._start(self._update())

    def compute_deletion(self) -> None:
        """Compute the deletion curves of the chosen methods, and draw them as they are computed."""
        self._start(self._update_and_delete())

    def _start(self, work: Iterator[None]) -> None:
        self.problem.value = ""
        self._worker.start(work)

    def wait(self) -> "Explorer":
        """Wait until nothing is being computed."""
        self._worker.wait()
        return self

    @property
    def shown(self) -> Shown:
        """What is shown."""
        return self.state.shown

    @property
    def by_hand(self) -> bool:
        """Whether what is shown was chosen in the widgets, so that the explorer's arguments alone do not lead to it."""
        first = self.shown.training == self.source.first and not self._own and self.shown.target == next(iter(self.shown.words))
        return not first or self._choice() != self._began

    def _choice(self) -> tuple:
        return self.number.value, self.methods.value, self.opacity.value

    # Work, a piece at a time.

    def _update(self) -> Iterator[None]:
        training = self._chosen_network()
        if not self.state.uses(training):
            self._busy(f"Loading {self.source.name(training)} ...")
            self.state.use(training)
        yield
        if self.state.look_at(self._chosen_image(training)):
            shown = self.shown
            self.target.options = [(", ".join(shown.says(i, 1)), i) for i in shown.words]
            self.target.value = shown.target
        self.state.choose(self.target.value)
        self._draw_maps()
        self._draw_curves()
        yield
        failed = []
        for method in self.methods.value:
            if method not in self.shown.maps:
                self._busy(f"Computing {display_name(method)} ...")
                try:
                    self.state.explain(method, self.number.value)
                except Exception as error:  # the other methods are shown all the same
                    failed.append(f"{display_name(method)} gave no map: {said(error)}")
                yield  # another wish may have come, to which this does not belong
                self._draw_maps()
                if failed:
                    self._tell(*failed)
        self._busy("")

    def _update_and_delete(self) -> Iterator[None]:
        yield from self._update()
        for done, points in self.state.delete(self.methods.value):
            self.progress.max, self.progress.value = points, done
            self._draw_curves()
            yield

    def _chosen_network(self) -> Network:
        dataset = self.dataset.value
        if self._offered != dataset:
            choices = self.source.networks(dataset)
            self._offered, self._choices = dataset, dict(choices)
            self.network.options = list(choices)
            self.network.value = next(iter(choices))
            self._offer(self.source.has_texts(dataset))
        return self._choices[self.network.value]

    def _offer(self, texts: bool) -> None:
        """Show the widgets and the methods that images or texts need."""
        for widget, is_needed in ((self.upload, not texts), (self.opacity, not texts), (self.sentence, texts)):
            widget.layout.display = "" if is_needed else "none"
        names = (*METHODS, *PARTICULAR_METHODS) if texts else tuple(METHODS)
        if self.methods.options != names:
            self.methods.options, self.methods.value = names, self._methods[texts]

    def _chosen_image(self, training: Network) -> Look:
        return self.source.upload(training, *self._own) if self._own else self.source.image(training, self.number.value)

    # What is seen and said.

    def _drawn(self) -> list[str]:
        return [name for name in self.methods.value if name in self.shown.maps]

    def _begun(self) -> list[str]:
        return [name for name in self.methods.value if self.shown.reached(name) is not None]

    def maps_figure(self, columns: int = 4, side: float = 1.76) -> Figure:
        """Return the maps that are shown, as a figure of panels `side` inches wide."""
        return draw_maps(self.shown, self._drawn(), self.opacity.value / 100, columns, side)

    def curve_figure(self) -> Figure:
        """Return the deletion curves that are shown, as a figure."""
        return draw_curves(self.shown, self._begun())

    def _draw_maps(self, change: Mapping | None = None) -> None:
        with self._drawing:
            if not self.state.is_empty:
                methods = ", ".join(map(display_name, self._drawn())) or "no method"
                self.maps.value = picture(self.maps_figure(), f"{self.shown.name} and its maps by {methods}")
                self._say()

    def _draw_curves(self) -> None:
        with self._drawing:
            some = self._begun()
            self.curves.value = picture(self.curve_figure(), f"Deletion curves; {self._curves_in_words()}") if some else ""
            if not some:
                self.progress.value = 0
            self._say()

    def _curves_in_words(self) -> str:
        parts = []
        for name in sorted(self._begun(), key=self.shown.area):
            reached = self.shown.reached(name)
            so_far = "" if reached == 1 else f" ({reached:.0%} of the pixels so far)"
            parts.append(f"{display_name(name)} {self.shown.area(name):.3f}{so_far}")
        return f"areas, the smallest first: {', '.join(parts)}" if parts else "not computed yet"

    def _say(self) -> None:
        shown, (word, share) = self.shown, self.shown.says(digits=1)
        maps = [f"{display_name(name)} {shown.where(name)}" for name in self._drawn()]
        says = f"gives {word}, {share}" if shown.of_number else f"says {word} with {share}"
        where = "Words with the largest values" if shown.tokens else "Where most of the largest tenth of each map is"
        lines = [
            f"{shown.name}: {self.source.name(shown.training)} {says}.",
            f"{where}: {'; '.join(maps) or 'no map yet'}.",
            f"Deletion: {self._curves_in_words()}.",
        ]
        self.words.value = f'<p role="status">{"<br>".join(map(html.escape, lines))}</p>'

    def _busy(self, text: str) -> None:
        self.activity.value = f'<p role="status" style="margin: 0">{html.escape(text)}</p>' if text else ""

    def _tell(self, *messages: str) -> None:
        self.problem.value = f'<p role="alert" style="{ALERT}">{"<br>".join(map(html.escape, messages))}</p>'

    def _failed(self, error: Exception) -> None:
        self._busy("")
        self._tell(said(error))
