"""Run by test_parallel on two gloo ranks: ``python -m torch.distributed.run ... THIS``."""

import torch
from torch import distributed

from ws_pipeline.backbone.loss import nt_xent_loss


def check_gathered_negatives() -> None:
    """Loss and gradients of two ranks' halves, averaged, are those of the whole batch."""
    rank = distributed.get_rank()
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn((2, 6, 5), generator=generator)
    matrix = torch.randn((5, 4), generator=generator)

    alone = matrix.clone().requires_grad_()
    rows = torch.nn.functional.normalize(torch.cat((first @ alone, second @ alone)), dim=-1)
    similarity = (rows @ rows.T / 0.1).masked_fill(torch.eye(12, dtype=torch.bool), -torch.inf)
    expected = torch.nn.functional.cross_entropy(similarity, torch.arange(12).roll(6))
    expected.backward()

    share = slice(3 * rank, 3 * rank + 3)
    ours = matrix.clone().requires_grad_()
    loss = nt_xent_loss(first[share] @ ours, second[share] @ ours, temperature=0.1)
    loss.backward()
    values = torch.stack([loss.detach(), *ours.grad.flatten()])
    distributed.all_reduce(values)
    values /= distributed.get_world_size()
    torch.testing.assert_close(values[0], expected.detach())
    torch.testing.assert_close(values[1:], alone.grad.flatten())


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    check_gathered_negatives()
    distributed.destroy_process_group()
