"""Pre-norm transformer blocks over windows of tokens; padding is never attended to. No I/O.

Source: METHOD 3 (arXiv 2406.09997, 2510.02096): non-causal, GELU MLP of four times the width, no
bias anywhere.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

MLP_RATIO = 4
"""Hidden units of the MLP per unit of width, as in all the papers."""

# FP32_ATTENTION: on CPUs with AVX512-BF16 torch 2.13's fused attention is four times slower
# backward in bf16 than in fp32 (11.2 against 2.8 ms, 32 windows of 64 tokens, 4 heads of 32), so
# attention itself stays in fp32 there; its matrices are small.

RESIDUAL_STD = 1e-3
"""Of projections onto the residual stream. nanochat starts them at zero; a little more lets the
first gradient reach every parameter."""


class Block(nn.Module):
    """Attention, then MLP, each added to the residual stream."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_attention = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.norm_mlp = nn.LayerNorm(width, bias=False)
        self.mlp_in = nn.Linear(width, MLP_RATIO * width, bias=False)
        self.mlp_out = nn.Linear(MLP_RATIO * width, width, bias=False)

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        """Mix and transform.

        Args:
            x: ``(batch, window, width)``.
            keys: ``(batch, 1, 1, window)`` bool, true where a token may be attended to.
        """
        x = x + self.attention_out(self._attend(self.norm_attention(x), keys))
        hidden: Tensor = self.mlp_out(functional.gelu(self.mlp_in(self.norm_mlp(x))))
        return x + hidden

    def _attend(self, x: Tensor, keys: Tensor) -> Tensor:
        batch, window, width = x.shape
        heads = self.qkv(x)
        if x.device.type == "cpu":
            heads = heads.float()  # see FP32_ATTENTION
        heads = heads.view(batch, window, 3, self.num_heads, width // self.num_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # (batch, head, window, head_size)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=keys)
        return mixed.transpose(1, 2).reshape(batch, window, width)


class Stack(nn.Module):
    """Blocks one after the other."""

    def __init__(self, width: int, num_heads: int, num_layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(num_layers))

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Transform ``(batch, window, width)``; `real` ``(batch, window)`` is false on padding."""
        keys = attendable(real)
        for block in self.blocks:
            x = block(x, keys)
        return x


def attendable(real: Tensor) -> Tensor:
    """Return the key mask ``(batch, 1, 1, window)``.

    A window without any real token attends to itself, since a softmax over nothing is NaN and one
    NaN would spread over the whole batch.
    """
    return (real | ~real.any(dim=-1, keepdim=True))[:, None, None, :]


@torch.no_grad()
def initialize_blocks(stack: Stack, generator: torch.Generator) -> None:
    """Draw a stack's weights; every block starts close to the identity.

    The two projections that write to the residual stream start small, the others with std
    ``1 / sqrt(width)``, so a fresh stack passes its input on almost unchanged.
    """
    for module in stack.blocks:
        assert isinstance(module, Block)  # noqa: S101 - ModuleList forgets the type
        width = module.qkv.in_features
        nn.init.normal_(module.qkv.weight, std=width**-0.5, generator=generator)
        nn.init.normal_(module.mlp_in.weight, std=width**-0.5, generator=generator)
        nn.init.normal_(module.attention_out.weight, std=RESIDUAL_STD, generator=generator)
        nn.init.normal_(module.mlp_out.weight, std=RESIDUAL_STD, generator=generator)
        nn.init.ones_(module.norm_attention.weight)
        nn.init.ones_(module.norm_mlp.weight)
