import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ws_pipeline.backbone.config import BackboneConfig
from ws_pipeline.backbone.model import Backbone
from ws_pipeline.backbone.throughput import (
    Throughput,
    flops_per_token,
    measure_matmul_rate,
)
from ws_pipeline_tests.backbone.tiny_corpus import make_windows


def test_model_flops_are_those_that_torch_counts():
    config = BackboneConfig(
        token_size=8, width=48, num_layers=2, num_heads=2, latent_size=12, projection_size=0
    )
    windows = make_windows(batch=2, window=16)
    whole = windows._replace(mask=torch.ones_like(windows.mask))
    counter = FlopCounterMode(display=False)
    with counter:
        output = Backbone(config)(*whole)
        (output.prediction.tokens.sum() + output.scale.sum()).backward()
    # torch 2.13 does not count its fused attention on a CPU: two products of 16 x 48 for each token
    # in four blocks, forward and twice backward.
    attention = 32 * 4 * 3 * (2 * 2 * 16 * 48)
    expected = counter.get_total_flops() + attention
    assert 32 * flops_per_token(config, 16) == pytest.approx(expected, rel=0.01)


def test_a_matmul_rate_is_a_number_of_this_century():
    assert 1e9 < measure_matmul_rate(torch.device("cpu"), "fp32") < 1e15


def test_time_that_is_paused_does_not_count():
    throughput = Throughput(flops_per_token=2, matmul_rate=8.0)
    throughput.pause()
    assert throughput.tokens_per_second == 0
    throughput.start()
    throughput.pause()
    before = throughput.seconds
    assert throughput.seconds == before > 0
