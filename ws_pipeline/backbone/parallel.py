"""What is different where several processes train one model. Collectives; no other I/O.

What it is: rows gathered with their gradients, gradients that wait for the last part of a step,
weights sharded by FSDP2 and made whole again. What it is not: launching, and DDP itself, which
`Accelerator.prepare_model` sets up.

FSDP2 is torch's own `fully_shard`, not Accelerate's plugin: on a CPU the plugin is silently DDP
(accelerate 1.15), so what the tests run would not be what GPUs run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from ws_pipeline.backbone.model import Backbone
from ws_pipeline.backbone.normalization import LOCAL, Reduction


class _GatherRows(torch.autograd.Function):
    """All processes' rows, this one's first gradient share summed over all of them.

    torch 2.13 deprecates its own differentiable `all_gather` in favour of a private module.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.num_rows = rows.shape[0]
        parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous()
        distributed.all_reduce(gradient)  # gloo has no reduce_scatter; the rows are few
        start = distributed.get_rank() * ctx.num_rows
        return gradient[start : start + ctx.num_rows]


def num_processes() -> int:
    """Return how many processes train; 1 without a process group."""
    ready = distributed.is_available() and distributed.is_initialized()
    return int(distributed.get_world_size()) if ready else 1


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Concatenate ``(rows, features)`` of all processes, in order; gradients go back to each.

    Returns:
        All rows, and the index of this process's first.
    """
    if num_processes() == 1:
        return rows, 0
    every: Tensor = _GatherRows.apply(rows)  # type: ignore[no-untyped-call]
    return every, distributed.get_rank() * rows.shape[0]


def all_processes() -> Reduction:
    """Return the reduction over all processes; collectives, so that all have to ask alike."""
    if num_processes() == 1:
        return LOCAL
    return Reduction(_total, _largest)


def _total(part: Tensor) -> Tensor:
    every = part.clone()
    distributed.all_reduce(every)
    return every


def _largest(part: Tensor) -> Tensor:
    every = part.clone()
    distributed.all_reduce(every, op=distributed.ReduceOp.MAX)
    return every


def shard_backbone(backbone: Backbone) -> None:
    """Leave each process its share of every block's weights, in place.

    Weights stay float32; the products run in the precision of autocast, as they do under DDP.
    """
    for stack in (backbone.encoder, backbone.decoder):
        for block in stack.blocks:
            fully_shard(block)
    fully_shard(backbone)


@contextmanager
def sum_later(model: nn.Module, *, last: bool) -> Iterator[None]:
    """Keep gradients to this process until the last part of a step."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
        yield
    elif isinstance(model, DistributedDataParallel) and not last:
        with model.no_sync():
            yield
    else:
        yield


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor as if it were not sharded; a collective if it is."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """Shard a whole tensor as another one is sharded, or return it as it is."""
    if not isinstance(pattern, DTensor) or tensor.shape != pattern.shape:
        return tensor
    return distribute_tensor(
        tensor.to(pattern.device), pattern.device_mesh, pattern.placements, src_data_rank=None
    )


def whole_backbone(backbone: Backbone, *, main: bool) -> Backbone:
    """Return the backbone with all its weights; a collective if they are sharded.

    The copy lies on the backbone's device; processes other than the main one keep none of it.
    """
    if not isinstance(backbone, FSDPModule):
        return backbone
    state = {name: whole(tensor) for name, tensor in backbone.state_dict().items()}
    if not main:
        return backbone
    copy = Backbone(backbone.config).to(next(iter(state.values())).device)
    copy.load_state_dict(state)
    return copy.eval()
