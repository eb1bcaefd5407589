from pathlib import Path

import polars as pl
import pytest
from huggingface_hub import HfApi, ModelCard, snapshot_download

from ws_pipeline.errors import ConfigError, MissingInputError
from ws_pipeline.hub.server import serve_in_thread
from ws_pipeline.zoo.index import read_index
from ws_pipeline.zoo.publish import publish_report, publish_zoo


def test_publishing_copies_every_repo_once(tiny_folder: Path, tmp_path: Path) -> None:
    names = set(read_index(tiny_folder)["name"])
    assert publish_zoo(tiny_folder, tmp_path, "demo-zoo") == len(names)
    assert {path.name for path in (tmp_path / "demo-zoo").iterdir()} == names
    for name in names:
        for source in (tiny_folder / "repos" / name).iterdir():
            copy = tmp_path / "demo-zoo" / name / source.name
            assert copy.read_bytes() == source.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["demo-zoo"], "nothing is left over"


def test_publishing_again_touches_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    publish_zoo(tiny_folder, tmp_path, "demo-zoo")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert publish_zoo(tiny_folder, tmp_path, "demo-zoo") == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_only_a_changed_repo_is_copied_again(tiny_folder: Path, tmp_path: Path) -> None:
    publish_zoo(tiny_folder, tmp_path, "demo-zoo")
    damaged = tmp_path / "demo-zoo" / read_index(tiny_folder)["name"][0] / "config.json"
    good = damaged.read_bytes()
    damaged.write_text("{}")
    assert publish_zoo(tiny_folder, tmp_path, "demo-zoo") == 1
    assert damaged.read_bytes() == good


def test_cards_name_the_owner_under_which_they_are_published(
    tiny_folder: Path, tmp_path: Path
) -> None:
    publish_zoo(tiny_folder, tmp_path, "someone")
    cards = [ModelCard.load(path) for path in tmp_path.glob("someone/*/README.md")]
    bases = [card.data.base_model for card in cards if card.data.base_model]
    assert bases
    assert all(base.startswith("someone/") for base in bases)
    assert not any("demo-zoo/" in str(card) for card in cards)


def test_an_owner_is_a_name_and_not_a_path(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"owner must be letters.*got '\.\./x'"):
        publish_zoo(tiny_folder, tmp_path, "../x")


def test_an_unfinished_zoo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        MissingInputError, match=r"must hold a trained zoo, it has no index\.parquet"
    ):
        publish_zoo(tmp_path, tmp_path / "hub", "demo-zoo")


def test_the_report_becomes_a_data_set_repo_that_is_no_model(
    reported_folder: Path, tmp_path: Path
) -> None:
    hub = tmp_path / "hub"
    publish_zoo(reported_folder, hub, "lab")
    assert publish_report(reported_folder, hub, "lab", "tiny")
    assert not publish_report(reported_folder, hub, "lab", "tiny")
    names = read_index(reported_folder)["name"].to_list()
    with serve_in_thread(hub) as url:
        api = HfApi(endpoint=url)
        assert {model.id for model in api.list_models()} == {f"lab/{name}" for name in names}
        assert api.dataset_info("lab/tiny").card_data.pretty_name == "Model zoo tiny"
        cache = {"endpoint": url, "cache_dir": tmp_path / "cache"}
        got = Path(snapshot_download("lab/tiny", repo_type="dataset", **cache))
    assert pl.read_parquet(got / "index.parquet")["owner"].unique().to_list() == ["lab"]
    assert (got / "figures" / "factors.png").is_file()


def test_a_zoo_without_its_report_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="must hold a report"):
        publish_report(tiny_folder, tmp_path, "lab", "tiny")


def test_the_name_of_the_data_sets_folder_is_no_owner(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="owner must be"):
        publish_zoo(tiny_folder, tmp_path, "datasets")
