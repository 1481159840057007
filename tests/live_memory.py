"""What PyTorch's operations hold in memory."""

import weakref
from collections import defaultdict

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class LiveMemory(TorchDispatchMode):
    """The largest number of bytes that the results of PyTorch's operations held at a time."""

    def __init__(self):
        super().__init__()
        self.peak, self.sizes, self.held = 0, {}, defaultdict(set)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.hold(tensor)
        return result

    def hold(self, tensor):
        storage = tensor.untyped_storage()
        self.held[storage.data_ptr()].add(id(tensor))  # a view holds its base
        self.sizes[storage.data_ptr()] = storage.nbytes()
        self.peak = max(self.peak, sum(self.sizes[key] for key, by in self.held.items() if by))
        weakref.finalize(tensor, self.held[storage.data_ptr()].discard, id(tensor))
