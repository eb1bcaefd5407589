import itertools
import math

import pytest
import torch

from ws_pipeline.backbone.config import BackboneConfig
from ws_pipeline.backbone.positions import LONGEST_PERIOD, BandedCode, SummedCode, position_code


def encode(code, *positions):
    return code(torch.tensor([positions]))[0]


def test_the_summed_code_is_the_papers_formula():
    width, position = 8, (17, 3, 5)
    expected = []
    for i in range(width // 2):
        frequency = 10_000 ** (-2 * i / width)
        expected += [
            sum(math.sin(p * frequency) for p in position),
            sum(math.cos(p * frequency) for p in position),
        ]
    torch.testing.assert_close(encode(SummedCode(width), position)[0], torch.tensor(expected))


def test_the_summed_code_collides_and_the_banded_one_does_not():
    permutations = list(itertools.permutations((17, 3, 5)))
    summed, banded = encode(SummedCode(32), *permutations), encode(BandedCode(32), *permutations)
    assert torch.cdist(summed, summed).max() < 1e-4
    assert torch.pdist(banded).min() > 0.2


@pytest.mark.parametrize("place", [0, 63_000, 5_600_000, 99_999_999])
def test_the_banded_code_tells_neighbours_apart_up_to_1e8(place: int):
    codes = encode(BandedCode(128), *((place + i, 2, 7) for i in range(64)))
    assert torch.pdist(codes).min() > 0.5


def test_the_banded_code_never_repeats_below_1e8():
    places = torch.logspace(0, 8, 600, dtype=torch.float64).long().unique()
    codes = encode(BandedCode(128), *((int(n), 0, 0) for n in places))
    assert torch.pdist(codes).min() > 0.01
    assert LONGEST_PERIOD >= 1e8


def test_banded_phases_are_exact_at_1e8():
    code = BandedCode(96)
    place = 99_999_989
    frequency = code.frequencies[0].item()
    turns = (place * frequency) % 1.0
    assert encode(code, (place, 0, 0))[0, 0].item() == pytest.approx(
        math.sin(2 * math.pi * turns), abs=1e-4
    )


@pytest.mark.parametrize("kind", ["learned", "summed", "banded"])
def test_every_code_has_the_width_and_is_float32(kind: str):
    config = BackboneConfig(width=40, num_heads=4, position_code=kind)
    codes = position_code(config)(torch.randint(0, 100, (2, 5, 3)))
    assert codes.shape == (2, 5, 40)
    assert codes.dtype == torch.float32


def test_the_learned_code_shares_its_last_row_beyond_the_tables():
    code = position_code(BackboneConfig(position_code="learned", max_positions=4))
    torch.testing.assert_close(encode(code, (3, 1, 3)), encode(code, (900, 1, 77)))
