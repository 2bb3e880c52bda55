"""A GPU that is not there: tensors that say they are on it, computed on the CPU, and a count of when the host would wait for it.

torch's own fake tensors have no values and no backward pass without a driver. These have both, so a kernel runs to its end, and
what it returns can be compared with what the CPU returns.
"""

import copy
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("cuda", 0)
LIBRARY = f"{Path(__file__).parents[1] / 'saliency_lib'}/"
aten = torch.ops.aten

# Operations whose result, or the size of it, the host has to know before it can go on.
WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount",
    "unique_dim_consecutive", "equal", "mode", "_linalg_check_errors", "histc", "allclose", "multinomial", "_linalg_eigh",
}  # fmt: skip
MAKING = {"zeros", "ones", "empty", "full", "arange", "rand", "randn", "randint", "randperm", "eye", "linspace", "scalar_tensor"}


class OnGPU(Tensor):
    """A tensor that says that it is on the GPU; its values are those of a tensor on the CPU."""

    device = DEVICE
    is_cuda, is_cpu = True, False

    @staticmethod
    def __new__(cls, values: Tensor):
        layout = {"strides": values.stride(), "storage_offset": values.storage_offset(), "dtype": values.dtype}
        made = Tensor._make_wrapper_subclass(cls, values.size(), **layout)  # C++ takes it for one of the CPU, so backward works
        made.values_here = values
        return made

    def __deepcopy__(self, memo):
        made = OnGPU(self.values_here.clone())
        return nn.Parameter(made, self.requires_grad) if isinstance(self, nn.Parameter) else made

    def __repr__(self):
        return f"OnGPU({self.values_here})"

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {}, Counter())


def _name(operation) -> str:
    return operation.overloadpacket.__name__


def _place() -> str:
    """The innermost line of the library that is running."""
    frame = sys._getframe(1)
    while frame and not frame.f_code.co_filename.startswith(LIBRARY):
        frame = frame.f_back
    return f"{frame.f_code.co_filename.removeprefix(LIBRARY)}:{frame.f_lineno}" if frame else "outside"


def _run(operation, args, kwargs, waits: Counter):
    """Run an operation on the CPU, as the devices of its arguments ask, and count it if the host would wait for it."""
    name, tensors = _name(operation), [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = any(isinstance(tensor, OnGPU) for tensor in tensors)
    asked = kwargs.get("device")
    pinned = kwargs.get("pin_memory")
    target = there if asked is None or (there and name != "_to_copy") else torch.device(asked).type == "cuda"
    if name in MAKING and not tensors and torch._C._current_autograd_node() is not None:
        target = True  # C++ makes it during a backward pass for tensors that it takes for those of the CPU
    if name in {"_to_copy", "copy_"}:
        moved = args[0] if name == "_to_copy" else args[1]
        if isinstance(moved, OnGPU) != (target if name == "_to_copy" else isinstance(args[0], OnGPU)) and not (
            (kwargs.get("non_blocking") or args[2:3] == (True,)) and getattr(moved, "pinned", False)
        ):
            waits[f"{name} {_place()}"] += 1
    elif there:
        _check_devices(operation, name, args, tensors, waits)
        if name in WAITING or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            waits[f"{name} {_place()}"] += len(args[0]) if name == "mode" else 1  # mode sorts row by row
    if target and isinstance(kwargs.get("generator"), torch.Generator):
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    known = {key: value for key, value in kwargs.items() if key != "pin_memory"}
    if asked is not None:
        known["device"] = torch.device("cpu")
    args, known = tree_map_only(OnGPU, lambda tensor: tensor.values_here, (args, known))
    out = operation(*args, **known)
    if pinned:
        out.pinned = True
    if not target or name == "_local_scalar_dense":
        return out
    given = {id(tensor.values_here): tensor for tensor in tensors if isinstance(tensor, OnGPU)}  # what was written in place
    return tree_map_only(Tensor, lambda tensor: given[id(tensor)] if id(tensor) in given else OnGPU(tensor), out)


def _check_devices(operation, name, args, tensors, waits):
    """Refuse what a GPU refuses: tensors of both devices, except for numbers () and the places of an index, which it fetches."""
    here = [tensor for tensor in tensors if not isinstance(tensor, OnGPU) and tensor.ndim]
    if name in {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}:
        if not isinstance(args[0], OnGPU):
            raise RuntimeError(f"indices should be on the same device as the indexed tensor: {operation}")
        places = [place for place in args[1] if place is not None]
        here = [tensor for tensor in here if all(tensor is not place for place in places)]
        fetched = sum(not isinstance(place, OnGPU) for place in places)
        fills = name != "index" and len(places) == 1 and args[2].numel() == 1  # becomes masked_fill
        chosen = sum(place.dtype in (torch.bool, torch.uint8) for place in places if isinstance(place, OnGPU)) and not fills
        if fetched + chosen:
            waits[f"{name} {_place()}"] += fetched + chosen
    if here:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu: {operation}")


class _Operations(TorchDispatchMode):
    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {}, self.waits)


class _Calls(TorchFunctionMode):
    """Do what C++ would get wrong, since it takes the tensors for those of the CPU."""

    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (Tensor.to, Tensor.cpu, Tensor.cuda, Tensor.type_as):
            return self.moved(function, *args, **kwargs)
        if function is Tensor.pin_memory:
            out = args[0].clone()
            out.pinned = True
            return out
        if function is Tensor.is_pinned:
            return getattr(args[0], "pinned", False)
        if args and isinstance(args[0], OnGPU):
            if function is Tensor.tolist:
                self.waits[f"tolist {_place()}"] += 1
                return args[0].values_here.tolist()
            if function is Tensor.new_tensor:
                return torch.tensor(*args[1:], **{"device": DEVICE, "dtype": args[0].dtype} | kwargs)
            if function in (Tensor.numpy, Tensor.__array__):
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        return function(*args, **kwargs)

    def moved(self, function, tensor, *args, copy=False, memory_format=None, **kwargs):
        if function is Tensor.cpu:
            args = (torch.device("cpu"),)
        elif function is Tensor.cuda:
            args = (DEVICE,)
        if "other" in kwargs:
            args = (kwargs.pop("other"), *args)
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        device, dtype = device or tensor.device, dtype or tensor.dtype
        laid = memory_format or layout
        if (device.type, dtype) == (tensor.device.type, tensor.dtype) and not copy:
            return tensor if laid is None or tensor.is_contiguous(memory_format=laid) else tensor.clone(memory_format=laid)
        known = {"dtype": dtype, "device": device, "non_blocking": non_blocking, "memory_format": laid}
        return aten._to_copy.default(tensor, **known)


@contextmanager
def gpu():
    """While active, `.to("cuda")` works; yields the count of the times that the host would wait, by operation and line."""
    waits: Counter = Counter()
    start, lifting = torch.cuda._lazy_init, torch._C._only_lift_cpu_tensors()
    torch.cuda._lazy_init = lambda: None
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with _Operations(waits), _Calls(waits):
            yield waits
    finally:
        torch.cuda._lazy_init = start
        torch._C._set_only_lift_cpu_tensors(lifting)


def on_gpu(value):
    """Move tensors, and copies of models, to the GPU without counting it."""
    if not isinstance(value, nn.Module):
        return tree_map_only(Tensor, lambda tensor: OnGPU(tensor.detach().clone()), value)
    model = copy.deepcopy(value)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(OnGPU(parameter.detach()), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = OnGPU(buffer)
    return model


def fetched(value):
    """Return what is on the GPU as tensors of the CPU, without counting it."""
    return tree_map_only(OnGPU, lambda tensor: tensor.values_here, value)
