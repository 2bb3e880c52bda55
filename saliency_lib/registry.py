"""The tables of names: a name is the function, the YAML word, the artefact's slug and the legend's key."""

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping


def no_such(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """The error for an unknown name: what was got, the nearest known name, and all of them where they are few."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(known[:40])}{' ...' if len(known) > 40 else ''}"
    return ValueError(f"{kind} {name!r} is not known; {hint}")


def of_series(function: Callable) -> Callable:
    """A function of a model and its images, made to take series (B, T, F) as well.

    It is given them as images of one channel, (B, 1, T, F); the model, while it runs, gets series again.
    """

    @functools.wraps(function)
    def lifted(model, images, *arguments, **options):
        if getattr(images, "ndim", None) != 3 or not hasattr(model, "register_forward_pre_hook"):
            return function(model, images, *arguments, **options)
        hook = model.register_forward_pre_hook(lambda model, inputs: (inputs[0].squeeze(1), *inputs[1:]))
        try:
            return function(model, images.unsqueeze(1), *arguments, **options)
        except Exception as error:
            error.add_note(f"{tuple(images.shape)} was taken for series (B, T, F); one image is images[None]")
            raise
        finally:
            hook.remove()

    return lifted


class Registry:
    """A table from a name to a function, filled by decorators when it is first looked at.

    Args:
        kind: what an entry is, for error messages ("method").
        modules: those whose import fills the table.
        adapt: makes of a function what is entered in its place.
    """

    def __init__(self, kind: str, *modules: str, adapt: Callable[[Callable], Callable] = lambda function: function):
        self.kind = kind
        self._modules = modules
        self._adapt = adapt
        self._entries: dict[str, Callable] = {}
        self._fallback: Callable[[str], Callable | None] = lambda name: None

    def register(self, function: Callable | None = None, *, name: str | None = None) -> Callable:
        """Decorator: enter `function`, adapted to the table, under `name`, its own name if left out."""
        if function is None:
            return lambda function: self.register(function, name=name)
        function = self._adapt(function)
        name = name or function.__name__
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        self._entries[name] = function
        return function

    def fallback(self, function: Callable[[str], Callable | None]) -> Callable:
        """Decorator: `function(name)` supplies an entry (or None) for a name that is not in the table."""
        self._fallback = function
        return function

    def _filled(self) -> dict[str, Callable]:
        for module in self._modules:
            importlib.import_module(module)
        return self._entries

    def __getitem__(self, name: str) -> Callable:
        entries = self._filled()
        entry = (entries.get(name) or self._fallback(name)) if isinstance(name, str) else None
        if entry is None:
            raise no_such(self.kind, name, entries)
        return entry

    def __contains__(self, name: object) -> bool:
        return name in self._filled()

    def __iter__(self) -> Iterator[str]:
        return iter(self._filled())

    def __len__(self) -> int:
        return len(self._filled())

    def __repr__(self) -> str:
        return f"{self.kind}s: {', '.join(self)}"

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """The keyword-only options of an entry, by name."""
        parameters = inspect.signature(self[name]).parameters
        return {key: value for key, value in parameters.items() if value.kind is value.KEYWORD_ONLY}

    def defaults(self, name: str) -> dict[str, object]:
        """The default values of an entry's options."""
        return {key: value.default for key, value in self.options(name).items()}

    def taken(self, name: str, given: Mapping[str, object]) -> dict[str, object]:
        """Of what is given, the options that an entry takes."""
        known = self.options(name)
        return {option: value for option, value in given.items() if option in known}

    def check_options(self, name: str, options: Mapping[str, object]) -> None:
        """Refuse an option that the entry does not take.

        Raises:
            ValueError: the name is not in the table, or an option is not one of the entry's.
        """
        known = self.options(name)
        for option in options:
            if option not in known:
                raise no_such(f"option of {self.kind} {name!r}", option, known)


METHODS = Registry("method", "saliency_lib.attribution", adapt=of_series)
METRICS = Registry("metric", "saliency_lib.evaluation", adapt=of_series)
OBJECTIVES = Registry("objective", "saliency_lib.objectives", adapt=of_series)
DATASETS = Registry("dataset", "saliency_lib.datasets", "saliency_lib.series")
MODELS = Registry("model", "saliency_lib.models", "saliency_lib.sequence_models")
