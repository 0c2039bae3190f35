"""One training run on several processes, started by ``torchrun``: the numbers of one process, in less time.

Every process holds the net and draws the whole batch, but sends only its part of the rows through the net.
Then it gets the outputs of all rows, and computes the loss of the whole batch. So any objective, a mean over
rows or not, has the gradient of a single process, but for rounding. Without ``torchrun`` this does nothing.
"""

import atexit
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel


def join() -> int:
    """How many processes this run has. The first call makes them one group, with a GPU each if there are."""
    if not dist.is_torchelastic_launched():
        return 1
    if not dist.is_initialized():
        if cuda := torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
        signal.signal(signal.SIGTERM, _ended)  # torchrun sends it to all others when a process has ended
        atexit.register(dist.destroy_process_group)
    return dist.get_world_size()


def is_first() -> bool:
    """Whether this is the process that writes files."""
    return join() == 1 or dist.get_rank() == 0


def agreed(value: Any) -> Any:
    """What the first process gives, in all of them."""
    if join() > 1:
        dist.broadcast_object_list(told := [value])
        value = told[0]
    return value


def _ended(*_: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise RuntimeError(
        "a process of this run has ended, so the others end, too; torchrun says which it was, "
        "and the same command with --resume continues from the last checkpoint"
    )


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, as each of them has a loss."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        dist.all_reduce(total := values.contiguous().clone())
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


class _Rows:
    """The own part of the rows on their way through a net."""

    def cut(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The own rows of inputs (N, ...)."""
        self.all = len(inputs[0])
        ends = (self.all * (dist.get_rank() + end) // dist.get_world_size() for end in (0, 1))
        self.own = slice(*ends)
        return tuple(t[self.own] for t in inputs)

    def gather(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Any:
        """Outputs of all rows, (N, ...), from those of the own rows."""
        if isinstance(output, tuple):
            return tuple(self.gather(module, inputs, each) for each in output)
        around = (self.own.start, self.all - self.own.stop)
        return _Sum.apply(F.pad(output, (0, 0) * (output.ndim - 1) + around))

    def dropout(self, module: Any, x: Tensor) -> Tensor:
        """What a single process would drop of the own rows: the mask is drawn for all."""
        return x * F.dropout(x.new_ones(self.all, *x.shape[1:]), module.p, module.training)[self.own]

    def batch_norm(self, norm: Any, x: Tensor) -> Tensor:
        """Batch norm of (N, C, ...) by the moments of all rows; PyTorch's SyncBatchNorm refuses the CPU."""
        if not norm.training:
            return type(norm).forward(norm, x)  # type: ignore[no-any-return]
        axes, usual = [0, *range(2, x.ndim)], norm.running_mean.clone()  # (C,)
        values = x - usual.view(-1, *(1,) * (x.ndim - 2))  # nearer to 0, their squares are more exact
        rows = torch.full_like(usual, x.numel() / len(usual))
        sums = torch.stack([rows, values.sum(axes), values.square().sum(axes)])
        count, first, second = _Sum.apply(sums)  # (C,) each
        mean, var = usual + first / count, second / count - (first / count).square()
        with torch.no_grad():
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(var * count / (count - 1), norm.momentum)
            norm.num_batches_tracked += 1
        zero, scale = torch.zeros_like(usual), norm.weight * torch.rsqrt(var + norm.eps)
        level = norm.bias - mean * scale
        return F.batch_norm(x, zero, zero + 1, scale, level, eps=0)  # x * scale + level, quickly


@contextmanager
def sharing(run: Any) -> Iterator[None]:
    """Let the processes share the rows that ``run.objective`` sends through ``run.model``.

    Where the net's ``forward`` does not give tensors (N, ...), its ``shared`` names the part that does.
    """
    if join() == 1:
        yield
        return
    rows, body = _Rows(), run.model.get_submodule(getattr(run.model, "shared", ""))
    for module in body.modules():
        for kind, forward in ((_BatchNorm, rows.batch_norm), (nn.Dropout, rows.dropout)):
            if isinstance(module, kind):
                vars(module)["forward"] = partial(forward, module)
    cost = nn.Module()  # the net and the objective, so that the averaging of gradients sees the whole way
    cost.model, vars(cost)["forward"] = run.model, run.objective
    run.objective = DistributedDataParallel(cost, static_graph=True)
    try:
        with body.register_forward_pre_hook(rows.cut), body.register_forward_hook(rows.gather):
            yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            _ended()
        raise
    finally:
        for module in body.modules():
            vars(module).pop("forward", None)
