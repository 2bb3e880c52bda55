"""The explorer: widgets to choose a picture, a network and methods, and to look at maps and deletion curves."""

import base64
import glob
import html
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from torch import Tensor

from saliency_lib import paths
from saliency_lib.artefacts import pipeline, store
from saliency_lib.artefacts.specs import Training, from_dict
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import frozen, logits_of
from saliency_lib.core.checks import positive
from saliency_lib.data.table import DATASETS
from saliency_lib.evaluation.deletion import PRESETS
from saliency_lib.evaluation.perturbation import even_fractions, perturbation_curve
from saliency_lib.figures import plots
from saliency_lib.networks.table import MODELS

LARGEST_FILE = 8 * 2**20  # bytes; Jupyter's connection takes about 10 MB in one message
MOST_PIXELS = 40_000_000
AT_ONCE = 4  # points of the curves between two pictures of them
TOP = 5  # classes to choose from
QUICK = {  # what is cheaper here than a method's own default, so that every map comes within seconds
    "active_gradient": {"classes": 5},
    "inactive_gradient": {"classes": 5},
    "active_smoothgrad": {"classes": 5, "samples": 10},
    "active_integrated_gradients": {"classes": 5, "steps": 20},
    "guided_path_integrated_gradients": {"steps": 50},
    "rise": {"masks": 500},
    "sidu_grids": {"masks": 200},
    "lime": {"samples": 200},
}
# JupyterLab takes arrow keys and Enter for its own commands, also in a list of ours, unless the element in focus says not to.
# ipywidgets cannot set attributes, and gives its slider no label. Where this does not run, only the keyboard is the poorer.
OWN_KEYS = """<style onload="this.closest('.saliency-explorer').addEventListener('focusin', ({target}) => {
target.setAttribute('data-lm-suppress-shortcuts', 'true');
if (target.matches('.noUi-handle')) target.setAttribute('aria-label', 'Opacity (%)'); });"></style>"""


@dataclass
class Shown:
    """What the explorer shows.

    Args:
        name: of the picture; image: (1, C, H, W) in [0, 1].
        training: the network.
        words, probabilities: what the network says of the picture, by class index, the likeliest class first.
        target: the class that is explained.
        maps: per method (H, W), not rescaled.
        curves: per method the shares of the pixels taken away so far, and the probability of the target at each.
    """

    name: str
    image: Tensor
    training: Training
    words: dict[int, str]
    probabilities: dict[int, float]
    target: int
    maps: dict[str, Tensor] = field(default_factory=dict)
    curves: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)

    def area(self, method: str) -> float:
        """The area under a method's curve, by the trapezoid rule."""
        fractions, values = self.curves[method]
        return float(np.trapezoid(values, fractions))


def decode(content: bytes) -> Image.Image:
    """A PNG or JPEG file as an upright colour picture; what is transparent lies on white.

    Raises:
        ValueError: too large, damaged, or of another kind.
    """
    if len(content) > LARGEST_FILE:
        raise ValueError(
            f"the file has {len(content) / 2**20:.1f} MB, at most {LARGEST_FILE // 2**20} are taken; save the picture smaller"
        )
    most = f"at most {MOST_PIXELS:,} are taken; save it smaller"
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
            width, height = picture.size
            if width * height <= MOST_PIXELS:
                upright = ImageOps.exif_transpose(picture)
                if upright.mode.startswith("I"):  # 16 bits of grey, which convert() would cut off at 255
                    upright = Image.fromarray((np.asarray(upright, np.float32) / 257).round().astype(np.uint8))
                upright = upright.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    except Image.DecompressionBombError as error:  # Pillow's own limit, which is above ours
        raise ValueError(f"the picture has too many pixels, {most}") from error
    except Exception as error:  # a damaged file makes decoders raise anything
        raise ValueError(
            "the file cannot be read as a PNG or JPEG picture: it is damaged or of another kind; choose another"
        ) from error
    raise ValueError(f"the picture has {width} x {height} pixels, {most}")


def fit(picture: Image.Image, dataset: str) -> Tensor:
    """A picture as a data set's images are: (1, C, H, W) in [0, 1].

    The centre square of the picture, bicubic (antialiased), grey where the images are; for ImageNet's classes without the
    outer sixteenth at each edge, as ImageNet's networks are evaluated.
    """
    channels, side = DATASETS[dataset].shape
    bleed = (1 - 224 / 256) / 2 if DATASETS[dataset].imagenet else 0
    fitted = ImageOps.fit(picture.convert("L" if channels == 1 else "RGB"), (side, side), Image.Resampling.BICUBIC, bleed=bleed)
    pixels = np.asarray(fitted, np.float32).reshape(side, side, channels) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()


def data_sets() -> list[str]:
    """The data sets of images: the table's, and the folders of class folders in data/."""
    named = [name for name in DATASETS if not name.startswith("series_")]
    folders = sorted(paths.DATA.iterdir()) if paths.DATA.is_dir() else []
    own = [folder.name for folder in folders if (folder / "test").is_dir() and not folder.name.startswith(".")]
    return ["photos", "mnist5k", *sorted({*named, *own} - {"photos", "mnist5k"})]


def networks(dataset: str) -> dict[str, Training]:
    """The networks to choose from for a data set, by readable names: published weights, or what the store holds."""
    if DATASETS[dataset].imagenet:
        published = sorted((name for name in MODELS if MODELS[name].weights), key=lambda name: name != "efficientnet_lite0")
        return {name: Training(dataset, name) for name in published}
    stored = {}
    for file in sorted((paths.OUTPUTS / "training").glob(f"{glob.escape(dataset)}-*/{store.PROVENANCE}")):
        try:
            training = from_dict(json.loads(file.read_text())["spec"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # of an older library or damaged: not offered
        if training.dataset == dataset and store.place(training) == file.parent.resolve():
            stored[label(training)] = training
    return dict(sorted(stored.items(), key=lambda item: item[1].recipe != "standard"))


def label(training: Training) -> str:
    """A network's name, which tells it from all others of its data set; published weights have their model's."""
    if training.recipe == "pretrained":
        return training.model
    parts = [training.model, training.recipe]
    if training.start:
        parts.append(f"from {training.start.dataset} ({label(training.start)})")
    if (training.scale, training.seed) != ("embedded", 0):
        parts.append(f"{training.scale}, seed {training.seed}")
    return ", ".join(parts + [f"{name} {value}" for name, value in training.changes.items()])


def whereabouts(values: Tensor) -> str:
    """In which ninth of a map (H, W) most of its greatest tenth lies, and how much, in words."""
    if values.min() == values.max():
        return "nowhere, it is constant"
    pixels = values.numel()
    best = values.flatten().argsort(descending=True, stable=True)[: max(1, pixels // 10)]
    height, width = values.shape
    ninths = 3 * (best // width * 3 // height) + best % width * 3 // width
    counts = ninths.bincount(minlength=9)
    words = [f"{y} {x}".strip() for y in ("upper", "", "lower") for x in ("left", "centre", "right")]
    return f"{words[int(counts.argmax())]} ({counts.max() / len(best):.0%})"


def draw_maps(shown: Shown, methods: Sequence[str], opacity: float, columns: int = 4, side: float = 1.76) -> Figure:
    """The picture and its maps, laid on the grey picture with an opacity in [0, 1]; panels are `side` inches wide."""
    image = shown.image[0].numpy()
    rows = -(-(len(methods) + 1) // columns)
    figure = Figure(figsize=(side * columns, (side + 0.45) * rows), layout="constrained", facecolor="white")
    flat = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in flat:
        axes.set_axis_off()
    plots.draw_image(flat[0], image)
    says = f"{plots.shorten(shown.words[shown.target], 20)} {shown.probabilities[shown.target]:.0%}"
    flat[0].set_title(f"{plots.shorten(shown.name, 28)}\n{says}", fontsize=9, parse_math=False)
    for axes, method in zip(flat[1:], methods, strict=False):
        plots.draw_map(axes, shown.maps[method].numpy(), image=image, opacity=opacity)
        axes.set_title(plots.words(method), fontsize=9)
    return figure


def draw_curves(shown: Shown, methods: Sequence[str]) -> Figure:
    """The deletion curves, as far as they have come."""
    figure = Figure(figsize=(7.05, 2.7), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for method in methods:
        fractions, values = shown.curves[method]
        style = {"color": plots.colour(method), "linestyle": plots.line(method), "linewidth": 1.6}
        axes.plot(100 * np.asarray(fractions), values, label=f"{plots.words(method)} {shown.area(method):.3f}", **style)
    axes.set(xlim=(0, 100), ylim=(0, 1))
    axes.set_xlabel("pixels removed (% of the image)", fontsize=9)
    axes.set_ylabel(f"probability of {plots.shorten(shown.words[shown.target], 20)}", fontsize=9, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    figure.legend(title="method, area", title_fontsize=8, fontsize=8, frameon=False, loc="outside right upper")
    return figure


def picture(figure: Figure, alt: str) -> str:
    """A figure as HTML that carries its own words; ipywidgets' Image has no place for them."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    code = base64.b64encode(png.getvalue()).decode()
    style = "max-width: 100%; height: auto"
    return f'<img src="data:image/png;base64,{code}" alt="{html.escape(alt, quote=True)}" style="{style}">'


def said(error: Exception) -> str:
    """An error as it is told to people."""
    known = isinstance(error, (ValueError, FileNotFoundError))  # those that the library words for people
    return str(error) if known else f"{type(error).__name__}: {error}"


class Explorer:
    """Widgets that show one picture's maps and deletion curves; each also says in words what it shows.

    Work is done in a thread, a piece at a time, so that the widgets answer meanwhile; a new wish takes the place of the last.
    What goes wrong is said in the widgets.

    Args:
        training: the network to begin with; its data set is the one to begin with.
        image: number of the test image to begin with.
        methods: names in METHODS.
        options: per method its options, in place of QUICK's.
        steps: strides of the deletion curve.
        seed: fixes the methods' random numbers.
    """

    def __init__(
        self,
        training: Training | None = None,
        *,
        image: int = 0,
        methods: Sequence[str] = ("gradient", "integrated_gradients", "gradcam", "random", "edges"),
        options: Mapping[str, Mapping] | None = None,
        steps: int = 28,
        seed: int = 0,
    ):
        training = training or Training("photos", "efficientnet_lite0")
        self.shown: Shown | None = None
        self._first, self._steps, self._seed = training, positive("steps", steps), seed
        self._options = QUICK | dict(options or {})
        for name in methods:
            METHODS.check_options(name, self._options.get(name, {}))
        self._uploaded: tuple[str, Image.Image] | None = None
        self._trained: tuple[Training, pipeline.Trained] | None = None
        self._choices: dict[str, Training] = {}
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._drawing, self._starting = threading.RLock(), threading.Lock()
        self._worker = threading.local()  # has `works` in the threads that compute
        self._make_widgets(image, methods)
        self._began = self._choice()
        self._watch()
        self.refresh()

    def _make_widgets(self, image: int, methods: Sequence[str]) -> None:
        wide, named = {"width": "auto"}, {"description_width": "100px"}
        same = {"layout": wide, "style": named}
        names = data_sets()
        names += [self._first.dataset] if self._first.dataset not in names else []
        self.dataset = widgets.Dropdown(options=names, value=self._first.dataset, description="Data set", **same)
        self.number = widgets.BoundedIntText(value=image, min=0, max=10**7, description="Test image", **same)
        self.upload = widgets.FileUpload(accept=".png,.jpg,.jpeg", description="Upload a PNG or JPEG", layout=wide)
        self.network = widgets.Dropdown(description="Network", **same)
        self.target = widgets.Dropdown(description="Class", **same)
        self.methods = widgets.SelectMultiple(options=list(METHODS), value=tuple(methods), rows=9, description="Methods", **same)
        self.opacity = widgets.IntSlider(value=70, max=100, step=5, description="Opacity (%)", continuous_update=False, **same)
        self.delete = widgets.Button(description="Deletion curve", button_style="primary", layout={"flex": "1 1 auto"})
        self.stop = widgets.Button(description="Stop", layout={"flex": "0 1 90px"})
        self.progress = widgets.IntProgress(max=self._steps + 1, description="Progress", **same)
        self.activity, self.problem, self.words, self.maps, self.curves = (widgets.HTML() for _ in range(5))
        controls = [self.dataset, self.number, self.upload, self.network, self.target, self.methods, self.opacity]
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
        self.opacity.observe(self._draw_maps, "value")
        self.delete.on_click(lambda button: self.compute_deletion())
        self.stop.on_click(lambda button: self._stop.set())

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        shown = self.box._repr_mimebundle_()
        return shown | {"text/plain": "The explorer's widgets; they need a running kernel: run this notebook in JupyterLab."}

    # What the user does.

    def _changed(self, change: dict) -> None:
        if not hasattr(self._worker, "works"):  # the explorer sets choices too
            self.refresh()

    def _from_data_set(self, change: dict) -> None:
        self._uploaded = None
        self._changed(change)

    def _receive(self, change: dict) -> None:
        if not change["new"]:
            return
        file = change["new"][0]
        self.upload.value = ()  # so that the same file can be chosen again
        try:
            self._uploaded = (str(file["name"]), decode(bytes(file["content"])))
        except ValueError as error:
            self._tell(said(error))
        else:
            self.refresh()

    def refresh(self) -> None:
        """Bring what is shown in line with the widgets."""
        self._start(self._update())

    def compute_deletion(self) -> None:
        """Compute the deletion curves of the chosen methods and draw them as they come."""
        self._start(self._compute_deletion())

    @property
    def by_hand(self) -> bool:
        """Whether what is shown was chosen in the widgets, so that the explorer's arguments alone do not lead to it."""
        shown = self.shown
        first = shown.training == self._first and not self._uploaded and shown.target == next(iter(shown.words))
        return not first or self._choice() != self._began

    def _choice(self) -> tuple:
        return self.number.value, self.methods.value, self.opacity.value

    def wait(self) -> "Explorer":
        """Wait until nothing is being computed."""
        while (thread := self._thread) is not None and thread.is_alive():
            thread.join()
        return self

    # Work, a piece at a time.

    def _start(self, work: Iterator[None]) -> None:
        with self._starting:
            self._stop.set()
            self.problem.value = ""
            self._stop, before = threading.Event(), self._thread
            self._thread = threading.Thread(target=self._work, args=(work, self._stop, before), daemon=True)
            self._thread.start()

    def _work(self, work: Iterator[None], stop: threading.Event, before: threading.Thread | None) -> None:
        self._worker.works = True
        if before is not None:
            before.join()
        try:
            while not stop.is_set():
                next(work)
        except StopIteration:
            return
        except Exception as error:  # whatever a model or a method raises belongs into the widgets
            if not stop.is_set():
                self._busy("")
                self._tell(said(error))
            elif stop is self._stop:
                self._busy("Stopped.")
        else:
            if stop is self._stop:
                self._busy("Stopped.")

    def _update(self) -> Iterator[None]:
        training = self._chosen_network()
        if self._trained is None or self._trained[0] != training:
            self._busy(f"Loading {label(training)} ...")
            self._trained = (training, pipeline.train(training))
        yield
        name, image = self._chosen_image(training.dataset)
        if not (self.shown and self.shown.training == training and torch.equal(self.shown.image, image)):
            self._predict(name, image, training)
        elif self.target.value != self.shown.target:
            self.shown = replace(self.shown, target=self.target.value, maps={}, curves={})
        self.shown.name = name
        self._draw_maps()
        self._draw_curves()
        yield
        failed = []
        for method in self.methods.value:
            if method in self.shown.maps:
                continue
            self._busy(f"Computing {plots.words(method)} ...")
            try:
                self.shown.maps[method] = self._explain(method)
            except Exception as error:  # the other methods are shown all the same
                failed.append(f"{plots.words(method)} gave no map: {said(error)}")
                yield  # another wish may have come, which this is not said of
                self._tell(*failed)
            else:
                yield
                self._draw_maps()
        self._busy("")

    def _chosen_network(self) -> Training:
        dataset = self.dataset.value
        if not self._choices or next(iter(self._choices.values())).dataset != dataset:
            first = {label(self._first): self._first} if dataset == self._first.dataset else {}
            choices = first | networks(dataset) | first  # the first one, also where the store has another of its name
            if not choices:
                raise ValueError(
                    f"no network has been trained on {dataset} yet; run `papermill notebooks/01_train.ipynb out.ipynb "
                    f"-p dataset {dataset}` first, or choose photos or mnist5k"
                )
            self._choices = choices
            self.network.options = list(choices)
            self.network.value = next(iter(choices))
        return self._choices[self.network.value]

    def _chosen_image(self, dataset: str) -> tuple[str, Tensor]:
        if self._uploaded:
            name, uploaded = self._uploaded
            return name, fit(uploaded, dataset)
        number = self.number.value
        found = pipeline.load(dataset, "test", number, number + 1)
        return found.names[0] if found.names else f"{dataset} {number}", found.images

    def _predict(self, name: str, image: Tensor, training: Training) -> None:
        model = self._trained[1].model
        with frozen(model):
            shares = logits_of(model, image.to(pipeline.device()))[0].softmax(0).cpu()
        best = shares.argsort(descending=True, stable=True)[:TOP].tolist()
        classes = pipeline.load(training.dataset, "test", 0, 1).classes
        self.shown = Shown(name, image, training, {i: classes[i] for i in best}, {i: float(shares[i]) for i in best}, best[0])
        self.target.options = [(f"{self.shown.words[i]}, {self.shown.probabilities[i]:.1%}", i) for i in best]
        self.target.value = self.shown.target

    def _explain(self, method: str) -> Tensor:
        image = self.shown.image.to(pipeline.device())
        options = METHODS.taken(method, {"seed": self._seed, "indices": torch.tensor([self.number.value])})
        options |= self._options.get(method, {})
        return METHODS[method](self._trained[1].model, image, torch.tensor([self.shown.target]), **options)[0].cpu()

    def _compute_deletion(self) -> Iterator[None]:
        yield from self._update()
        shown, device = self.shown, pipeline.device()
        chosen = [name for name in self.methods.value if name in shown.maps]
        fractions, done = even_fractions(shown.image[0, 0].numel(), self._steps), 0
        methods = [name for name in chosen if len(shown.curves.get(name, ([], []))[0]) < len(fractions)]
        if not methods:
            return
        maps = torch.stack([shown.maps[name] for name in methods]).to(device)
        images = shown.image.to(device).expand(len(maps), -1, -1, -1)
        shown.curves.update({name: ([], []) for name in methods})
        self.progress.max, self.progress.value = len(fractions), 0
        while done < len(fractions):
            left = len(fractions) - done
            some = fractions[done : done + (left if left <= AT_ONCE + 1 else AT_ONCE)]  # a curve has at least two points
            targets, fill = torch.full((len(maps),), shown.target), PRESETS["rise"]["deletion_fill"]
            values = perturbation_curve(self._trained[1].model, images, maps, targets, fractions=some, fill=fill)
            done += len(some)
            for name, row in zip(methods, values.values.tolist(), strict=True):
                before = shown.curves[name]
                shown.curves[name] = (before[0] + values.fractions.tolist(), before[1] + row)
            self.progress.value = done
            self._draw_curves()
            yield

    # What is seen and said.

    def _drawn(self, of: Callable[[str], bool]) -> list[str]:
        return [name for name in self.methods.value if of(name)]

    def _begun(self, method: str) -> bool:
        """Whether a method's curve has any point."""
        return bool(self.shown.curves.get(method, ([], []))[0])

    def maps_figure(self, columns: int = 4, side: float = 1.76) -> Figure:
        """The maps that are shown, as a figure of panels `side` inches wide."""
        shown = self.shown
        return draw_maps(shown, self._drawn(shown.maps.__contains__), self.opacity.value / 100, columns, side)

    def curve_figure(self) -> Figure:
        """The deletion curves that are shown, as a figure."""
        return draw_curves(self.shown, self._drawn(self._begun))

    def _draw_maps(self, change: dict | None = None) -> None:
        with self._drawing:
            if self.shown:
                methods = self._drawn(self.shown.maps.__contains__)
                alt = f"{self.shown.name} and its maps by {', '.join(map(plots.words, methods)) or 'no method'}"
                self.maps.value = picture(self.maps_figure(), alt)
                self._say()

    def _draw_curves(self) -> None:
        with self._drawing:
            some = self._drawn(self._begun)
            self.curves.value = picture(self.curve_figure(), f"Deletion curves; {self._curves_in_words()}") if some else ""
            if not some:
                self.progress.value = 0
            self._say()

    def _curves_in_words(self) -> str:
        parts = []
        for name in sorted(self._drawn(self._begun), key=self.shown.area):
            reached = self.shown.curves[name][0][-1]
            so_far = "" if reached == 1 else f" ({reached:.0%} of the pixels so far)"
            parts.append(f"{plots.words(name)} {self.shown.area(name):.3f}{so_far}")
        return f"areas, the smallest first: {', '.join(parts)}" if parts else "not computed yet"

    def _say(self) -> None:
        shown = self.shown
        word, share = shown.words[shown.target], shown.probabilities[shown.target]
        maps = [f"{plots.words(name)} {whereabouts(shown.maps[name])}" for name in self._drawn(shown.maps.__contains__)]
        lines = [
            f"{shown.name}: {label(shown.training)} says {word} with {share:.1%}.",
            f"Where most of the top tenth of each map lies: {', '.join(maps) or 'no map yet'}.",
            f"Deletion: {self._curves_in_words()}.",
        ]
        self.words.value = f'<p role="status">{"<br>".join(map(html.escape, lines))}</p>'

    def _busy(self, text: str) -> None:
        self.activity.value = f'<p role="status" style="margin: 0">{html.escape(text)}</p>' if text else ""

    def _tell(self, *messages: str) -> None:
        style = "background: #fdecea; color: #8a1f11; border-left: 4px solid #8a1f11; padding: 6px 10px; line-height: 1.35"
        self.problem.value = f'<p role="alert" style="{style}">{"<br>".join(map(html.escape, messages))}</p>'
