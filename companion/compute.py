"""Where and how the arithmetic runs, chosen once: no other module asks what machine it runs on."""

import os
import platform
import random
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, is_dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.processes import join

DEVICE_VARIABLE = "COMPANION_DEVICE"


def pick_device(name: str | None = None) -> torch.device:
    """The device of that name, else of ``COMPANION_DEVICE``, else CUDA, MPS or CPU in that order."""
    name = name or os.environ.get(DEVICE_VARIABLE) or None
    join()  # under torchrun, "cuda" is a GPU of this process's own
    if name is None:
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"the device {name!r} cannot be used here ({reason}); "
            f"use 'cpu', or unset {DEVICE_VARIABLE} to let the package choose"
        ) from error
    return device


@cache
def cpu_has_bfloat16() -> bool:
    """Whether the processor has AVX-512 BF16 or AMX: emulated, bfloat16 is slower than float32."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe)() for probe in probes if hasattr(torch.cpu, probe))


@dataclass(frozen=True)
class Compute:
    """A device with its precision policy."""

    device: torch.device  #: where tensors live
    #: the dtype of matrix products and convolutions in mixed precision, or ``None`` for float32 throughout.
    #: Parameters, batch statistics and losses stay in float32
    autocast_dtype: torch.dtype | None
    #: of image tensors. With the channels last in memory, convolutions run several times faster on the CPU,
    #: and at least as fast on a GPU; chapter 4 measures it
    memory_format: torch.memory_format = torch.channels_last

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which forward passes run."""
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)

    def model(self, model: nn.Module) -> nn.Module:
        """``model`` on the device, its convolution weights in the memory format."""
        # ``nn.Module.to`` accepts a memory format but its type stubs know only the long form
        return model.to(device=self.device).to(memory_format=self.memory_format)

    def resident(self, value: Any) -> Any:
        """A tuple of tensors, or a dataclass with some among its fields, moved to the device to stay there.

        A tuple stays where it is if it would take more than half of a GPU's free memory.
        """
        if self.device.type == "cpu":
            return value
        if isinstance(value, tuple):
            size = sum(t.numel() * t.element_size() for t in value)
            if self.device.type == "cuda" and size > torch.cuda.mem_get_info(self.device)[0] / 2:
                return value
            return tuple(t.to(self.device) for t in value)
        parts = vars(value) if is_dataclass(value) else {}
        tensors = {name: t.to(self.device) for name, t in parts.items() if isinstance(t, Tensor)}
        return replace(value, **tensors) if tensors else value


def pick_compute(
    device: str | None = None, precision: Literal["auto", "float32", "bfloat16"] = "auto"
) -> Compute:
    """Choose the device; "auto" is bfloat16 where it has that (CUDA from capability 8.0), else float32."""
    chosen = pick_device(device)
    if chosen.type == "mps" and not agrees_with_cpu(chosen):
        print("This GPU computes wrong gradients with this version of PyTorch, so the CPU is used.")
        chosen = torch.device("cpu")
    fast = precision == "bfloat16"
    if precision == "auto" and chosen.type == "cpu":
        fast = cpu_has_bfloat16()
    elif precision == "auto" and chosen.type == "cuda":
        fast = torch.cuda.get_device_capability(chosen) >= (8, 0)
    # before PyTorch 2.14, batch norm with the channels last gave wrong gradients on MPS (pytorch #175189)
    layout = torch.contiguous_format if chosen.type == "mps" else torch.channels_last
    return Compute(chosen, torch.bfloat16 if fast else None, layout)


def agrees_with_cpu(device: torch.device) -> bool:
    """Whether convolution, batch norm and addition have the same gradient on ``device`` as on the CPU."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 8, 6, 6, generator=generator)
    weight = torch.randn(8, 8, 3, 3, generator=generator)

    def gradient(place: torch.device) -> Tensor:
        kernel = weight.to(place, copy=True).requires_grad_()
        inputs = images.to(place)
        normed = F.batch_norm(F.conv2d(inputs, kernel, padding=1), None, None, training=True)
        (F.relu(normed) + inputs).square().mean().backward()  # type: ignore[no-untyped-call]
        assert kernel.grad is not None
        return kernel.grad.cpu()

    return torch.allclose(gradient(device), gradient(torch.device("cpu")), atol=1e-3, rtol=1e-2)


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators (PyTorch's on every device)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  libraries that use the global generator need it
    torch.manual_seed(seed)


def describe_hardware(device: torch.device) -> str:
    """One line that says what a measurement ran on."""
    name = platform.processor() or platform.machine()
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf8") as facts:  # only on Linux
        name = next((fact.split(":", 1)[1].strip() for fact in facts if fact.startswith("model name")), name)
    line = f"{name}, {os.cpu_count()} cores"
    if hasattr(os, "sysconf"):  # not on Windows
        line += f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    if device.type == "cuda":
        line = f"{torch.cuda.get_device_name(device)}; {line}"
    elif device.type == "mps":
        line = f"Apple GPU; {line}"
    elif cpu_has_bfloat16():
        line += ", bfloat16 instructions"
    return line
