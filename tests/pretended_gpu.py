"""A GPU that is only pretended, for machines without one.

Its tensors are computed on the processor, but say that they are on another device, and as on a
real GPU they refuse to meet tensors that are not: an operation on both raises RuntimeError, and
NumPy cannot read them. The device is torch's `meta`, the only other one that every build knows.
"""

from contextlib import contextmanager
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

GPU = torch.device("meta")
CPU = torch.device("cpu")
aten = torch.ops.aten
CROSSING = (aten._to_copy, aten.copy_, aten._foreach_copy_)  # from one device to another
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)


class OnGPU(torch.Tensor):
    "A tensor that claims to be on the GPU. held: the one that holds its numbers."

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, real):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            real.size(),
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=GPU,
        )

    def __init__(self, real):
        self.held = real

    def numpy(self, *, force=False):
        if not force:
            raise TypeError("a tensor on the GPU cannot become NumPy's; copy it first")
        return self.detach().cpu().numpy()

    def __repr__(self):
        return f"OnGPU({self.held})"

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return compute(operation, args, kwargs or {})


def check_together(operation, args, kwargs):
    "Raise RuntimeError where a GPU's tensor would meet one of the processor."
    packet = operation.overloadpacket
    tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)]
    if any(x.device == GPU and not isinstance(x, OnGPU) for x in tensors):
        raise NotImplementedError(f"{packet}: torch.tensor(device=...) cannot be pretended; use to")
    if packet in CROSSING:
        return
    if packet in INDEXING:  # indices may lie on either
        indices = args[1]
        args = (args[0], *args[2:])
        if not isinstance(args[0], OnGPU) and any(isinstance(i, OnGPU) for i in indices):
            raise RuntimeError(f"{packet}: indices are on the GPU, what is indexed is not")
    tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)]
    devices = {x.device.type for x in tensors if x.ndim}
    if len(devices) > 1 or (devices == {"cpu"} and any(isinstance(x, OnGPU) for x in tensors)):
        raise RuntimeError(f"{packet}: expected all tensors on one device, found {devices}")


def compute(operation, args, kwargs):
    "What an operation gives, on the device where a real one would give it."
    check_together(operation, args, kwargs)
    tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)]
    known = {id(x.held): x for x in tensors if isinstance(x, OnGPU)}
    asked = kwargs.get("device")
    there = bool(known) if asked is None else torch.device(asked) == GPU
    if asked is not None:
        kwargs = kwargs | {"device": CPU}
    real_args, real_kwargs = tree_map(
        lambda x: x.held if isinstance(x, OnGPU) else x, (args, kwargs)
    )
    out = operation(*real_args, **real_kwargs)

    def placed(x):
        if not isinstance(x, torch.Tensor):
            return x
        if id(x) in known:  # changed in place
            return known[id(x)]
        return OnGPU(x) if there else x

    if operation.overloadpacket in CROSSING[1:]:
        return args[0]
    return tree_map(placed, out)


class Pretending(TorchDispatchMode):
    "Operations inside the block know of the GPU. count: how many were computed there."

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = compute(operation, args, kwargs or {})
        self.count += any(isinstance(x, OnGPU) for x in tree_iter(out))
        return out


@contextmanager
def pretended_gpu():
    "A block in which the device `meta` computes; gives the `Pretending` that counts."
    kernels = "torch.optim.optimizer._get_fused_kernels_supported_devices"
    with mock.patch(kernels, lambda: ["cpu", GPU.type]), Pretending() as pretending:
        yield pretending
