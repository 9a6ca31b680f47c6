"""Linear layers that run on oneDNN where PyTorch would take its BLAS library, for inference on a CPU.

PyTorch sends float32 matrix products on x86 to MKL, which on AMD processors does not use AVX-512, and which packs a
weight anew at every call. oneDNN, which PyTorch carries as well, does both better at the same precision: two to three
times faster in `benchmarks/smolvla_speed.py`. Everything else (training, GPUs, bfloat16, torch.compile, builds of
PyTorch without oneDNN) takes the ordinary path.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Operators that torch.compile's CPU backend calls. They are not public: a build without them takes the ordinary path.
_linear_pointwise: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
_reorder_linear_weight: Any = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
# Smaller products (a token that is decoded, a small model) are over before oneDNN is set up.
_FEWEST_MULTIPLICATIONS = 2**22
_AVAILABLE = torch.backends.mkldnn.is_available() and None not in (_linear_pointwise, _reorder_linear_weight)


def runs_on_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether a product of x and weight may take oneDNN: large, float32, on the CPU, with no gradient wanted."""
    return (
        _AVAILABLE
        and x.shape[:-1].numel() * weight.numel() >= _FEWEST_MULTIPLICATIONS
        and not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and not torch.is_autocast_enabled("cpu")
    )


class CPULinear(nn.Linear):
    """A linear layer for many rows at once; oneDNN packs the weight at every call."""

    def forward(self, x: Tensor) -> Tensor:
        if not runs_on_onednn(x, self.weight):
            return F.linear(x, self.weight, self.bias)
        return _linear_pointwise(x, self.onednn_weight(), self.bias, "none", [], "")

    def onednn_weight(self) -> Tensor:
        """The weight as oneDNN is to read it."""
        return self.weight


class PackedCPULinear(CPULinear):
    """A linear layer for few rows, called again and again: the packed weight is kept, at the cost of a second copy."""

    _packed: Tensor | None = None
    _packed_from: tuple[int, int] | None = None

    def onednn_weight(self) -> Tensor:
        """The packed weight; packed anew when the weight has changed."""
        weight = self.weight
        # Tensors made in inference mode do not count their changes.
        source = (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        if self._packed_from != source:
            self._packed, self._packed_from = _reorder_linear_weight(weight.detach()), source
        assert self._packed is not None
        return self._packed


def use_cpu_linear(module: nn.Module) -> None:
    """Let the plain linear layers of a module that is not ours run on oneDNN; names and weights stay."""
    for child in module.modules():
        if type(child) is nn.Linear:
            child.__class__ = CPULinear
