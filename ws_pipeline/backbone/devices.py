"""What the device can do, asked of torch: the precision of matrix products. No I/O."""

import torch

from ws_pipeline.backbone.config import Precision
from ws_pipeline.errors import ConfigError


def has_bf16(device: torch.device) -> bool:
    """Say whether bf16 matrix products are faster than fp32 ones here.

    On CPUs that needs AVX512-BF16 or AMX: 140 against 380 GFLOP/s on two Zen cores with the former.
    Without them torch emulates bf16 and is slower than in fp32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def choose_precision(wanted: Precision, device: torch.device) -> Precision:
    """Return `fp32` or `bf16`.

    Raises:
        ConfigError: If bf16 is demanded of a CUDA device that lacks it.
    """
    if wanted == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if wanted == "bf16" and device.type == "cuda" and not has_bf16(device):
        raise ConfigError("TrainingConfig: precision bf16 needs a GPU of compute capability 8.0")
    return wanted


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the context that forward passes run in; it does nothing for fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
