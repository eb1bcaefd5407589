from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.errors import ManifestConflictError, MissingInputError, RefusedError
from ws_pipeline.storage.manifests import manifest_key
from ws_pipeline.storage.store import Store

KEY = manifest_key("headers", "507f1f77bcf86cd799439011", "a" * 40, "1")


def test_a_manifest_comes_back_as_it_was(store: Store) -> None:
    payload = {"b": [1, 2.5, None, "ü"], "a": {"x": True}}
    assert store.manifests.create(KEY, payload) == KEY
    assert store.manifests.read(KEY) == payload
    assert store.manifests.exists(KEY)


def test_a_missing_manifest_is_none_or_an_error(store: Store) -> None:
    assert not store.manifests.exists(KEY)
    assert store.manifests.read_if_exists(KEY) is None
    with pytest.raises(MissingInputError, match="There is no object at"):
        store.manifests.read(KEY)


def test_the_same_content_again_is_fine_whatever_the_order_of_its_keys(store: Store) -> None:
    store.manifests.create(KEY, {"a": 1, "b": 2})
    assert store.manifests.create(KEY, {"b": 2, "a": 1}) == KEY


def test_other_content_under_the_same_key_is_refused_and_changes_nothing(store: Store) -> None:
    store.manifests.create(KEY, {"a": 1})
    with pytest.raises(ManifestConflictError, match="needs a new version string"):
        store.manifests.create(KEY, {"a": 2})
    assert store.manifests.read(KEY) == {"a": 1}


def test_of_racing_writers_exactly_one_wins(store: Store) -> None:
    def write(number: int) -> bool:
        try:
            store.manifests.create(KEY, {"writer": number})
        except ManifestConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(write, range(8)))
    assert wins.count(True) == 1
    assert store.manifests.read(KEY) == {"writer": wins.index(True)}


def test_not_a_number_has_no_place_in_a_manifest(store: Store) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.manifests.create(KEY, {"a": float("nan")})
    assert not store.manifests.exists(KEY)


@pytest.mark.parametrize("part", ["", "a/b", "..", ".hidden", "a b", "a\n", "ä", "x" * 97, "-x"])
def test_a_key_of_unsafe_characters_is_refused(part: str) -> None:
    with pytest.raises(RefusedError, match="hub_id must be 1 to 96 letters"):
        manifest_key("headers", part, "main", "1")


_SAFE = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,95}", fullmatch=True)


@given(_SAFE, _SAFE, _SAFE, _SAFE)
def test_a_key_is_its_parts(stage: str, hub_id: str, revision: str, version: str) -> None:
    assert manifest_key(stage, hub_id, revision, version).split("/") == [
        stage, hub_id, revision, version,
    ]  # fmt: skip
