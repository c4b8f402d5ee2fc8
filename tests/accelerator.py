"""An accelerator that only says so: its tensors lie in the CPU's memory and are computed there.

They tell another device than the CPU's, get there by `.to`, and do not mix with the CPU's: what would
fail on a GPU for being in the wrong place fails on any machine.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

#: A kind of device that torch knows and needs no driver for.
ACCELERATOR = torch.device("meta")
CPU = torch.device("cpu")
_aten = torch.ops.aten
#: What tells the host a value of the accelerator's: on a GPU the host waits for it.
_TELLS = {_aten._local_scalar_dense, _aten.is_nonzero, _aten.nonzero, _aten.equal}
_MOVES = {_aten.to, _aten._to_copy, _aten.copy_}


@dataclass
class Traffic:
    """How often something went to the accelerator, and how often the host waited for it."""

    sent: int = 0
    waits: Counter[str] = field(default_factory=Counter)


_traffic = Traffic()


class There(Tensor):
    """A tensor on the accelerator."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "There":
        there = Tensor._make_wrapper_subclass(
            cls, here.shape, here.stride(), here.storage_offset(), dtype=here.dtype, device=ACCELERATOR
        )
        there.here = here
        return there

    def __repr__(self, **_: object) -> str:
        return f"There({self.here!r})"

    def tolist(self) -> Any:
        _traffic.waits["tolist"] += 1
        return self.here.tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(function, args, kwargs or {})


@contextmanager
def accelerator() -> Iterator[None]:
    """Within this context tensors can be brought to the accelerator, and made there."""
    with _Made(), _Computed():
        yield


@contextmanager
def traffic() -> Iterator[Traffic]:
    """What goes to the accelerator and back within this context."""
    global _traffic
    _traffic = seen = Traffic()
    yield seen
    _traffic = Traffic()


class _Computed(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(function, args, kwargs or {})


class _Made(TorchFunctionMode):
    """`torch.tensor` would make a tensor of this kind of device without content."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.pop("device", None) if function is torch.tensor else None
        result = function(*args, **kwargs)
        return result if device is None else result.to(device)


def _dispatch(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    if function is _aten._has_compatible_shallow_copy_type.default:
        return False  # a module that is brought elsewhere gets new parameters
    given, shape = tree_flatten((args, kwargs))
    tensors = [value for value in given if isinstance(value, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, There)]
    strangers = [tensor for tensor in tensors if not isinstance(tensor, There) and tensor.ndim]
    if there and strangers and function.overloadpacket not in _MOVES:
        raise RuntimeError(f"{function}: expected all tensors to be on the same device")
    target = next((value.type for value in given if isinstance(value, torch.device)), None)
    is_there = target == ACCELERATOR.type if target else bool(there)

    def brought_here(value: Any) -> Any:
        if isinstance(value, There):
            return value.here
        return CPU if isinstance(value, torch.device) and is_there else value

    if function.overloadpacket in _TELLS and there or there and not is_there:
        _traffic.waits[str(function.overloadpacket)] += 1
    if is_there and strangers:
        _traffic.sent += 1
    args, kwargs = tree_unflatten([brought_here(value) for value in given], shape)
    result = function(*args, **kwargs)
    known = {id(tensor.here): tensor for tensor in there}  # what is changed in place stays itself

    def placed(value: Any) -> Any:
        if not isinstance(value, Tensor) or not is_there:
            return value
        return known[id(value)] if id(value) in known else There(value)

    return tree_map(placed, result)
