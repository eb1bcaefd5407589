import json
from dataclasses import replace
from pathlib import Path

import pytest

from ws_pipeline.backbone.config import ViewConfig
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.errors import ConfigError, MissingInputError
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.mixture import Mixture
from ws_pipeline_tests.backbone.tiny_corpus import make_job


def test_a_job_survives_json(tmp_path: Path):
    mixture = Mixture(family_weights={"bert": 1.0, "cnn": 2.5})
    job = replace(make_job(tmp_path, "a" * 64), tags={"x": "y"}, num_processes=2, mixture=mixture)
    job.write(tmp_path / "deep" / "job.json")
    read = TrainJob.read(tmp_path / "deep" / "job.json")
    assert read.to_json() == job.to_json()
    parts = ("backbone", "training", "layout", "mixture")
    assert all(getattr(read, name) == getattr(job, name) for name in parts)


def test_the_digest_follows_what_decides_the_weights_and_nothing_else(tmp_path: Path):
    job = make_job(tmp_path, "a" * 64)
    same = replace(job, out_dir="elsewhere", tags={"a": "b"}, mlflow_tracking_uri="sqlite:///x")
    assert same.digest() == job.digest()
    assert replace(job, snapshot="b" * 64).digest() != job.digest()
    assert replace(job, training=replace(job.training, seed=1)).digest() != job.digest()
    assert replace(job, mixture=Mixture(temperature=2.0)).digest() != job.digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ("[1]", "must be a JSON object, got list"),
        ("[" * 100_000, "must be JSON"),
        ("{}", "TrainJob: recipe_name must be given"),
        ('{"backbone": {"depth": 3}}', "unknown field 'depth'"),
        ('{"backbone": 3}', "BackboneConfig: must be an object"),
    ],
)
def test_what_is_not_a_job_is_refused(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        TrainJob.from_json(text)


def test_parts_that_do_not_fit_are_refused(tmp_path: Path):
    job = make_job(tmp_path, "a" * 64)
    with pytest.raises(ConfigError, match="token layout, dense 16, got dense 8"):
        replace(job, layout=TokenLayout(token_size=16))
    with pytest.raises(ConfigError, match=r"num_processes \* accumulation = 3 \* 1, got 4"):
        replace(job, num_processes=3)
    with pytest.raises(ConfigError, match="projection_size must be positive"):
        replace(job, backbone=replace(job.backbone, projection_size=0))
    mixed = replace(job, views=ViewConfig(mixtures=0.5))
    with pytest.raises(ConfigError, match=r"even number of windows .* got 4 for 4"):
        replace(mixed, num_processes=4)


def test_a_missing_job_file_is_said_so(tmp_path: Path):
    with pytest.raises(MissingInputError, match=r"nothing\.json is none"):
        TrainJob.read(tmp_path / "nothing.json")


def test_a_job_is_plain_json(tmp_path: Path):
    values = json.loads(make_job(tmp_path, "a" * 64).to_json())
    assert values["backbone"]["max_positions"] == 16_384
