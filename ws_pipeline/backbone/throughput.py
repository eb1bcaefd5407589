"""How fast a training is, and against what the hardware can do. No I/O; asks torch's clock.

Model FLOPs are those that the mathematics needs: two for every weight and token forward, twice as
many backward, attention included, padding and recomputation not. Utilisation divides them by the
rate of a large matrix product in the same precision, measured here and now, not by a data sheet.
Source of the convention: PaLM, arXiv 2204.02311, appendix B.
"""

import time

import torch

from ws_pipeline.arrays import NUM_SCALE_FEATURES
from ws_pipeline.backbone.blocks import MLP_RATIO
from ws_pipeline.backbone.config import BackboneConfig, Precision

BACKWARD_RATIO = 2
"""A backward pass multiplies twice where the forward pass multiplies once."""

MATMUL_SIZE = {"cpu": 1_024, "cuda": 8_192}
"""Rows and columns of the measured product: 15 ms on two cores, 2 ms on an H100."""

NUM_MATMULS = 5


def flops_per_token(config: BackboneConfig, window_size: int) -> int:
    """Return the floating-point operations of training on one token of one view.

    Args:
        config: The network.
        window_size: Tokens that each token attends to.
    """
    width = config.width
    block = (4 + 2 * MLP_RATIO) * width * width + 2 * window_size * width
    ends = 2 * width * (config.token_size + config.latent_size)
    scale = 2 * NUM_SCALE_FEATURES * width if config.use_scale else 0
    forward = 2 * (2 * config.num_layers * block + ends + scale)
    return (1 + BACKWARD_RATIO) * forward


def measure_matmul_rate(device: torch.device, precision: Precision) -> float:
    """Return the FLOP per second of a large matrix product: the best of `NUM_MATMULS`."""
    size = MATMUL_SIZE.get(device.type, MATMUL_SIZE["cpu"])
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.ones((size, size), dtype=dtype, device=device) for _ in range(2))
    seconds = [_time_matmul(left, right) for _ in range(1 + NUM_MATMULS)][1:]
    return 2.0 * size**3 / min(seconds)


def _time_matmul(left: torch.Tensor, right: torch.Tensor) -> float:
    if left.is_cuda:
        torch.cuda.synchronize(left.device)
    began = time.perf_counter()
    left @ right
    if left.is_cuda:
        torch.cuda.synchronize(left.device)
    return time.perf_counter() - began


class Throughput:
    """Tokens over the time that training took; evaluations and checkpoints are not counted.

    Args:
        flops_per_token: Of all views of a token.
        matmul_rate: FLOP per second of all processes together.
    """

    def __init__(self, *, flops_per_token: int, matmul_rate: float) -> None:
        self.flops_per_token = flops_per_token
        self.matmul_rate = matmul_rate
        self.num_tokens = 0.0
        self._seconds = 0.0
        self._began: float | None = None

    def start(self) -> None:
        """Let the time run."""
        self._began = time.perf_counter()

    def pause(self) -> None:
        """Stop the time, for what is no training."""
        if self._began is not None:
            self._seconds += time.perf_counter() - self._began
            self._began = None

    @property
    def seconds(self) -> float:
        """Time that ran."""
        running = 0.0 if self._began is None else time.perf_counter() - self._began
        return self._seconds + running

    @property
    def tokens_per_second(self) -> float:
        """Real tokens of all processes."""
        seconds = self.seconds
        return self.num_tokens / seconds if seconds else 0.0

    def metrics(self) -> dict[str, float]:
        """Return the numbers as they are logged."""
        speed = self.tokens_per_second
        flops = speed * self.flops_per_token
        return {
            "train/tokens_per_second": speed,
            "train/model_flops_per_second": flops,
            "train/model_flops_utilization": flops / self.matmul_rate,
        }
