"""The unmodified huggingface_hub client against the embedded hub."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import (
    HfApi,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
)
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    NotASafetensorsRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder

from ws_pipeline.hub.server import make_app, serve_app_in_thread, serve_in_thread
from ws_pipeline_tests.hub.server_fixtures import write_repo


def moment(day: int) -> dict[str, object]:
    text = f"2026-01-{day:02d}T00:00:00.000Z"
    return {"createdAt": text, "lastModified": text}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    write_repo(folder, "lab/bert-one", settings=moment(1))
    write_repo(folder, "lab/bert-two", settings=moment(3), extra="base_model: lab/bert-one", seed=2)
    write_repo(folder, "lab/vit-one", kind="vit", licence="mit", settings=moment(2), seed=3)
    write_repo(folder, "other/bert-three", settings=moment(4) | {"_id": "f" * 24}, seed=4)
    write_repo(folder, "other/gated", settings=moment(5) | {"gated": "manual"}, seed=5)
    write_repo(folder, "other/secret", settings=moment(6) | {"private": True}, seed=6)
    write_repo(folder, "other/disabled", settings=moment(7) | {"disabled": True}, seed=7)
    return folder


@pytest.fixture(scope="module")
def endpoint(hub: Path) -> Iterator[str]:
    with serve_in_thread(hub) as url:
        yield url


@pytest.fixture(scope="module")
def api(endpoint: str) -> HfApi:
    return HfApi(endpoint=endpoint, token=False)


def test_a_plain_listing_has_every_repo_that_is_not_private(api: HfApi) -> None:
    models = list(api.list_models())
    assert {model.id for model in models} == {
        "lab/bert-one",
        "lab/bert-two",
        "lab/vit-one",
        "other/bert-three",
        "other/gated",
        "other/disabled",
    }
    assert all(model.created_at is not None and model.tags for model in models)


def test_a_listing_with_a_token_has_private_repos_too(endpoint: str) -> None:
    ids = {model.id for model in HfApi(endpoint=endpoint, token="hf_x").list_models()}
    assert "other/secret" in ids


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("vit", {"lab/vit-one"}),
        ("license:mit", {"lab/vit-one"}),
        (["bert", "base_model:lab/bert-one"], {"lab/bert-two"}),
        ("base_model:finetune:lab/bert-one", {"lab/bert-two"}),
        (["vit", "license:apache-2.0"], set()),
    ],
)
def test_filters_have_to_hold_together(api: HfApi, tags: str | list[str], expected: set) -> None:
    assert {model.id for model in api.list_models(filter=tags)} == expected


def test_author_search_pipeline_and_gated_narrow_a_listing(api: HfApi) -> None:
    assert len(list(api.list_models(author="lab"))) == 3
    assert [model.id for model in api.list_models(search="VIT")] == ["lab/vit-one"]
    assert [model.id for model in api.list_models(gated=True)] == ["other/gated"]
    assert "other/gated" not in {model.id for model in api.list_models(gated=False)}
    assert list(api.list_models(pipeline_tag="text-generation")) == []


def test_sort_and_limit_give_the_newest_first(api: HfApi) -> None:
    newest = list(api.list_models(sort="last_modified", limit=2, author="lab"))
    assert [model.id for model in newest] == ["lab/bert-two", "lab/vit-one"]
    created = list(api.list_models(sort="created_at"))
    assert [m.created_at for m in created] == sorted((m.created_at for m in created), reverse=True)


def test_expand_gives_the_asked_properties_alone(api: HfApi) -> None:
    (model,) = api.list_models(
        search="bert-two", expand=["sha", "cardData", "config", "safetensors", "baseModels"]
    )
    assert model.sha is not None
    assert len(model.sha) == 40
    assert model.card_data.license == "apache-2.0"
    assert model.card_data.eval_results[0].metric_value == 0.5
    assert model.config == {"model_type": "bert", "architectures": ["BertModel"]}
    assert model.safetensors.parameters == {"F16": 6, "F32": 24}
    assert model.safetensors.total == 30
    assert model.base_models == {"relation": "finetune", "models": [{"id": "lab/bert-one"}]}
    assert model.tags is None


def test_full_and_card_data_listings_say_more(api: HfApi) -> None:
    (model,) = api.list_models(search="bert-one", full=True, cardData=True)
    assert model.sha is not None
    assert [s.rfilename for s in model.siblings] == [
        "README.md",
        "config.json",
        "extra/notes.txt",
        "model.safetensors",
    ]
    assert model.card_data.datasets == ["digits"]


def test_pages_follow_each_other_without_gap_or_repeat(hub: Path) -> None:
    with serve_app_in_thread(make_app(hub, page_size=2)) as endpoint:
        api = HfApi(endpoint=endpoint, token=False)
        for sort in ("created_at", "last_modified", "downloads", None):
            ids = [m.id for m in api.list_models(sort=sort, expand=["sha", "tags"])]
            assert len(ids) == len(set(ids)) == 6


def test_model_info_has_sizes_and_digests(api: HfApi, hub: Path) -> None:
    info = api.model_info("lab/bert-one", files_metadata=True)
    weights = (hub / "lab/bert-one/model.safetensors").read_bytes()
    files = {sibling.rfilename: sibling for sibling in info.siblings}
    assert files["model.safetensors"].lfs.sha256 == hashlib.sha256(weights).hexdigest()
    assert files["model.safetensors"].size == files["model.safetensors"].lfs.size == len(weights)
    notes = b"notes\n"
    blob = hashlib.sha1(b"blob %d\0" % len(notes) + notes).hexdigest()
    assert files["extra/notes.txt"].blob_id == blob
    assert files["extra/notes.txt"].lfs is None
    assert info.__dict__["_id"] == hashlib.sha256(b"lab/bert-one").hexdigest()[:24]
    assert (info.library_name, info.pipeline_tag, info.gated) == (
        "transformers",
        "fill-mask",
        False,
    )
    assert info.model_index[0]["results"][0]["metrics"][0]["value"] == 0.5


def test_settings_give_an_id_that_survives_a_rename(api: HfApi) -> None:
    assert api.model_info("other/bert-three").__dict__["_id"] == "f" * 24


def test_a_revision_may_be_main_or_the_sha(api: HfApi) -> None:
    sha = api.model_info("lab/vit-one").sha
    assert api.model_info("lab/vit-one", revision=sha).sha == sha
    assert api.model_info("lab/vit-one", revision="main").sha == sha
    for revision in ("0" * 40, "refs/pr/1"):
        with pytest.raises(RevisionNotFoundError):
            api.model_info("lab/vit-one", revision=revision)


def test_a_tree_lists_files_and_folders(api: HfApi) -> None:
    flat = list(api.list_repo_tree("lab/bert-one"))
    assert [entry.path for entry in flat if isinstance(entry, RepoFolder)] == ["extra"]
    assert len(flat) == 4
    deep = list(api.list_repo_tree("lab/bert-one", recursive=True, expand=True))
    weights = next(entry for entry in deep if entry.path == "model.safetensors")
    assert isinstance(weights, RepoFile)
    assert weights.lfs.pointer_size > 100
    assert weights.last_commit.oid == api.model_info("lab/bert-one").sha
    assert "extra/notes.txt" in {entry.path for entry in deep}
    inside = list(api.list_repo_tree("lab/bert-one", "extra"))
    assert [entry.path for entry in inside] == ["extra/notes.txt"]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("lab/bert-one", "nowhere"))


def test_paths_info_answers_for_what_exists(api: HfApi) -> None:
    found = api.get_paths_info("lab/bert-one", ["extra", "config.json", "nowhere", ".hub.json"])
    assert [entry.path for entry in found] == ["extra", "config.json"]


def test_downloads_are_the_bytes_on_disk(endpoint: str, hub: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "extra/notes.txt"):
        path = hf_hub_download(
            "lab/bert-one", name, endpoint=endpoint, cache_dir=tmp_path, token=False
        )
        assert Path(path).read_bytes() == (hub / "lab/bert-one" / name).read_bytes()


def test_a_snapshot_has_every_served_file(endpoint: str, tmp_path: Path) -> None:
    path = snapshot_download("lab/vit-one", endpoint=endpoint, cache_dir=tmp_path, token=False)
    names = {p.relative_to(path).as_posix() for p in Path(path).rglob("*") if p.is_file()}
    assert names == {"README.md", "config.json", "extra/notes.txt", "model.safetensors"}


def test_safetensors_metadata_comes_by_range(api: HfApi) -> None:
    metadata = api.get_safetensors_metadata("lab/bert-one")
    assert metadata.files_metadata["model.safetensors"].tensors["a.weight"].shape == [6, 4]
    assert metadata.parameter_count == {"F16": 6, "F32": 24}


def test_a_gated_repo_is_described_but_not_downloaded(api: HfApi, endpoint: str, tmp_path) -> None:
    assert api.model_info("other/gated").gated == "manual"
    with pytest.raises(GatedRepoError):
        hf_hub_download(
            "other/gated", "config.json", endpoint=endpoint, cache_dir=tmp_path, token=False
        )
    path = hf_hub_download(
        "other/gated", "config.json", endpoint=endpoint, cache_dir=tmp_path, token="hf_x"
    )
    assert Path(path).exists()


def test_private_and_missing_repos_look_alike(api: HfApi, endpoint: str, tmp_path: Path) -> None:
    for repo_id in ("other/secret", "lab/nothing", "gpt2"):
        with pytest.raises(RepositoryNotFoundError):
            api.model_info(repo_id)
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download(repo_id, "config.json", endpoint=endpoint, cache_dir=tmp_path)
    assert HfApi(endpoint=endpoint, token="hf_x").model_info("other/secret").private


def test_a_disabled_repo_gives_nothing_away(api: HfApi, endpoint: str) -> None:
    assert api.model_info("other/disabled").disabled
    url = hf_hub_url("other/disabled", "config.json", endpoint=endpoint)
    with pytest.raises(DisabledRepoError):
        get_hf_file_metadata(url, token=False)


def test_a_missing_file_or_revision_is_named_as_such(endpoint: str, tmp_path: Path) -> None:
    def fetch(name: str, revision: str | None = None) -> None:
        hf_hub_download(
            "lab/bert-one", name, revision=revision, endpoint=endpoint, cache_dir=tmp_path
        )

    for name in ("nowhere.txt", ".hub.json", "extra"):
        with pytest.raises(EntryNotFoundError):
            fetch(name)
    with pytest.raises(RevisionNotFoundError):
        fetch("config.json", "0" * 40)


def test_a_repo_without_safetensors_is_said_to_be_one(tmp_path: Path) -> None:
    folder = write_repo(tmp_path, "lab/pickle")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with serve_in_thread(tmp_path) as endpoint:
        api = HfApi(endpoint=endpoint, token=False)
        with pytest.raises(NotASafetensorsRepoError):
            api.get_safetensors_metadata("lab/pickle")
        assert api.model_info("lab/pickle").safetensors is None
