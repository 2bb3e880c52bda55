"""Engines: programs that run a model's forward passes faster than PyTorch does layer by layer."""

import contextlib
import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from saliency_lib.core.batching import arranged, chunk_size, frozen
from saliency_lib.core.calls import tell
from saliency_lib.core.checks import check_images, check_logits
from saliency_lib.core.optional import optional
from saliency_lib.core.options import no_such
from saliency_lib.core.scores import gives_number
from saliency_lib.core.texts import text_model
from saliency_lib.networks.folding import fold

Run = Callable[[Tensor], Tensor]
LARGEST_ERROR = 1e-3  # of a logit, as a share of the largest logit
LONGEST_REASON = 300  # letters of an engine's own error


class Optimised(nn.Module):
    """A model whose forward passes an engine runs, for images of one shape; it has no gradients, and layers only in `layered`.

    The engine has a copy of the weights: later changes of the model do not reach it.

    Args:
        model: a copy of the original that nobody else changes.
        images: examples (B, C, H, W).
        run: maps images to logits (B, K).
    """

    engine: str

    def __init__(self, model: nn.Module, images: Tensor, run: Run):
        super().__init__()
        self.pixel_mean, self.gives_number = getattr(model, "pixel_mean", None), gives_number(model)
        self.place = nn.Parameter(images.new_empty(0), requires_grad=False)  # tells kernels the device and the type
        self._kind = images.shape[1:], images.dtype, images.device.type
        self._run = run
        self._original = (model,)  # in a tuple, so that its layers do not become those of this module

    @property
    def layered(self) -> nn.Module:
        """A copy of the original, for methods that read a layer and run many passes."""
        return self._original[0]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K).

        Raises:
            ValueError: a gradient would be needed, or the images differ from the examples in shape, type or device.
        """
        if torch.is_grad_enabled() and images.requires_grad:
            raise ValueError(
                f"the engine {self.engine!r} computes no gradients and shows no layers; use the original model, or the engine "
                "'folded', which keeps both"
            )
        given = images.shape[1:], images.dtype, images.device.type
        if given != self._kind:
            mine, yours = (f"{tuple(shape)} in {dtype} on {device}" for shape, dtype, device in (self._kind, given))
            raise ValueError(
                f"the model was optimised for images of {mine}, got {yours}; call sl.optimise with images like these"
            )
        return self._run(images.detach())


def check_engine(name: str) -> str:
    """Return the name of an engine, and refuse one that there is not."""
    if name not in ENGINES:
        raise no_such("engine", name, ENGINES)
    return name


def optimise(model: nn.Module, images: Tensor, engine: str = "folded", *, fallback: bool = False) -> nn.Module:
    """Return a model with the same logits whose forward passes are faster.

    - `folded` makes BatchNorm a part of the layers before it, in a copy of the model that keeps its gradients and its other
      layers.
    - `compiled` is torch.compile with constant weights. It needs a C++ compiler and minutes, which it caches on the disk, and
      pads batches to one size.
    - `openvino` is OpenVINO (extra `openvino`), on the CPU in float32. It is ready within seconds.
    - `auto` is `openvino` where that is installed and takes the model, and else `folded`; attribute `engine` of the result says
      which.
    - `eager` is the model itself, as PyTorch runs it.

    `compiled` and `openvino` run forward passes alone. Methods that perturb images and metrics that follow scores take them like
    any other model; gradients through them raise an error.

    Args:
        model: maps pixels (B, C, H, W) to logits (B, K).
        images: examples (B, C, H, W) of the shape, type and device of the later images. The logits of at most one pass of them
            are compared with those of the model.
        fallback: whether to return the original model, with a warning, where the engine cannot take it.

    Raises:
        ValueError: the engine cannot take the model, and the message names the unit at fault; or a logit differs by more than a
            thousandth of the largest.
        ModuleNotFoundError: the engine's package is not installed.

    Differs: logits agree up to roundings. A unit that is exactly 0 may become a tiny number, or the reverse, which changes maps
        that depend on signs there (active gradients, guided backpropagation).
    """
    images, engine = check_images(images), check_engine(engine)
    if engine == EAGER:
        return model
    if text_model(model) is not None:
        raise ValueError(f"the engine {engine!r} takes inputs of one shape, and texts differ in length; use 'eager'")
    if engine == AUTO:
        with contextlib.suppress(ValueError, ModuleNotFoundError):
            return optimise(model, images, "openvino")
        return optimise(model, images, "folded", fallback=fallback)
    images = images[: chunk_size(images, None)]
    with frozen(model), torch.inference_mode(False), torch.no_grad():
        expected = check_logits(model(arranged(images)))
        try:
            copy = deepcopy(model)
            run = BUILDERS[engine](copy, images)
            result: Any = run if isinstance(run, nn.Module) else Optimised(copy, images, run)
            _compare(result, images, expected)
        except ModuleNotFoundError:
            raise
        except Exception as error:  # whatever an engine raises of a model that it cannot take
            unit = _unit_at_fault(model, images[:2], engine)
            reason = f"the engine {engine!r} cannot take {unit}: {' '.join(str(error).split())[:LONGEST_REASON]}"
            if fallback:
                tell(f"{reason}; the original model is used")
                return model
            raise ValueError(f"{reason}; use another engine, or fallback=True for the original model") from error
    result.engine = engine
    return result.eval()


def _compiled(model: nn.Module, images: Tensor) -> Run:
    """Return the model under torch.compile with its weights as constants, for batches of one size: others are padded."""
    fast = torch.compile(model, fullgraph=True, dynamic=False, options={"freezing": True})
    rows = chunk_size(images, None)
    whole = arranged(images.new_zeros(rows, *images.shape[1:]))

    def run(images: Tensor) -> Tensor:
        logits = []
        for piece in images.split(rows):
            padded = torch.zeros_like(whole)
            padded[: len(piece)] = piece
            with torch.no_grad():
                logits.append(fast(padded)[: len(piece)].clone())
        return torch.cat(logits)

    return run


def _openvino(model: nn.Module, images: Tensor) -> Run:
    """Return the model as OpenVINO runs it, from a trace, for any number of images."""
    with optional("openvino"):
        from openvino import Core, PartialShape
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    if images.device.type != "cpu" or images.dtype != torch.float32:
        raise ValueError(f"it runs on the CPU in float32, and the images are {images.dtype} on {images.device.type}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes that become constants, and of the age of torch.jit.trace
        frontend = FrontEndManager().load_by_framework("pytorch")  # openvino.convert_model would report to its makers
        decoder = TorchScriptPythonDecoder(model, example_input=images)  # the frontend does not keep it alive
        program = frontend.convert(frontend.load(decoder))
    program.reshape({program.inputs[0]: PartialShape([-1, *images.shape[1:]])})
    settings = {
        "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same core
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    fast = Core().compile_model(program, "CPU", settings)
    return lambda images: torch.from_numpy(fast([images.contiguous().numpy()])[0])


BUILDERS: dict[str, Callable[[nn.Module, Tensor], Run]] = {"folded": fold, "compiled": _compiled, "openvino": _openvino}

AUTO, EAGER = "auto", "eager"
ENGINES = (AUTO, EAGER, *BUILDERS)


def _compare(run: Run, images: Tensor, expected: Tensor) -> None:
    """Refuse outputs that differ from those of the original, for all images at once and for one alone."""
    most = LARGEST_ERROR * float(expected.abs().amax())
    for rows in (slice(None), slice(1)):
        outputs, wanted = run(images[rows]), expected[rows]
        if outputs.shape != wanted.shape:
            raise ValueError(f"its outputs for {len(wanted)} images are {tuple(outputs.shape)}, not {tuple(wanted.shape)}")
        apart = float((outputs - wanted).abs().amax())
        if not apart <= most:
            raise ValueError(f"its outputs differ by {apart:.2g}, more than {most:.2g}")


def _unit_at_fault(model: nn.Module, images: Tensor, engine: str) -> str:
    """Return the name of the first module to finish, the smallest first, that the engine cannot take; or `the model`."""
    received: dict[str, tuple[nn.Module, Tensor, Tensor]] = {}

    def note(name: str) -> Callable[[nn.Module, tuple, object], None]:
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            if len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                received.setdefault(name, (module, inputs[0].clone(), output.clone()))

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    for name, (module, inputs, output) in received.items():
        try:
            if engine == "compiled":
                torch.compile(module, fullgraph=True, backend="eager")(inputs)  # only what torch can record
            else:
                _compare(BUILDERS[engine](deepcopy(module), inputs), inputs, output)
        except Exception:  # as in `optimise`
            return f"the unit {name} ({type(module).__name__})"
    return "the model"
