"""Copy a trained zoo into a hub's folder. No torch: publishing needs files only.

Models go to ``<hub>/<owner>/<name>/``, the report as a data-set repo to
``<hub>/datasets/<owner>/<zoo>/``. Files whose bytes do not change are not touched, so a hub that
looks at times and digests sees no change. A repo appears in the hub's folder whole or not at all.
Hubs that have no folder here: ``push``.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from ws_pipeline.errors import ConfigError, MissingInputError
from ws_pipeline.zoo.dataset_repo import DIVERSITY_FILE, REPORT_FOLDER, parquet_bytes
from ws_pipeline.zoo.index import INDEX_FILE, REPOS_FOLDER, read_index, write_if_changed

OWNER_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
REPO_FILES = ("README.md", "config.json", "model.safetensors")
DATASETS_FOLDER = "datasets"
"""Of a hub's folder; the Hub too gives no account this name."""


def publish_zoo(folder: Path, hub_folder: Path, owner: str) -> int:
    """Copy a trained zoo's repos to ``hub_folder/owner/<name>``, those that differ.

    Cards name their ``base_model`` under ``owner``, whatever owner the zoo was trained with.

    Returns:
        Number of repos that were new or changed.

    Raises:
        ConfigError: When ``owner`` is no name of an account.
        MissingInputError: When ``folder`` holds no finished zoo.
    """
    check_owner(owner)
    table = read_index(folder)
    (hub_folder / owner).mkdir(parents=True, exist_ok=True)
    return sum(
        _publish_files(read_repo(folder, name, old, owner), hub_folder / owner / name, hub_folder)
        for name, old in table.select("name", "owner").iter_rows()
    )


def publish_report(folder: Path, hub_folder: Path, owner: str, zoo: str) -> bool:
    """Copy a zoo's report to ``hub_folder/datasets/owner/zoo`` if it differs.

    Raises:
        ConfigError: When ``owner`` is no name of an account.
        MissingInputError: When the report was not written yet.
    """
    check_owner(owner)
    target = hub_folder / DATASETS_FOLDER / owner / zoo
    target.parent.mkdir(parents=True, exist_ok=True)
    return _publish_files(read_report(folder, owner), target, hub_folder)


def check_owner(owner: str) -> None:
    """Refuse an owner that is no name of an account."""
    if not OWNER_PATTERN.fullmatch(owner) or owner == DATASETS_FOLDER:
        raise ConfigError(f"owner must be letters, digits, '.', '_' and '-', got {owner!r}.")


def read_repo(folder: Path, name: str, old_owner: str, owner: str) -> dict[str, bytes]:
    """Read the files of a model repo as they are under another owner."""
    source = folder / REPOS_FOLDER / name
    files = {file: (source / file).read_bytes() for file in REPO_FILES}
    card = files["README.md"].decode()
    files["README.md"] = card.replace(f"{old_owner}/", f"{owner}/").encode()
    return files


def read_report(folder: Path, owner: str) -> dict[str, bytes]:
    """Read the files of the data-set repo as they are under another owner.

    Raises:
        MissingInputError: When the report was not written yet.
    """
    report = folder / REPORT_FOLDER
    if not (report / "README.md").is_file() or not (report / DIVERSITY_FILE).is_file():
        raise MissingInputError(
            f"{folder} must hold a report, it has no {REPORT_FOLDER}/README.md: materialise "
            "zoo/diversity, or run `ws-pipeline zoo train` again."
        )
    paths = sorted(path for path in report.rglob("*") if path.is_file())
    files = {str(path.relative_to(report)): path.read_bytes() for path in paths}
    index = pl.read_parquet(report / INDEX_FILE)
    old_owner = index["owner"][0]
    files["README.md"] = files["README.md"].replace(f"{old_owner}/".encode(), f"{owner}/".encode())
    if old_owner != owner:
        files[INDEX_FILE] = parquet_bytes(index.with_columns(owner=pl.lit(owner)))
    return files


def _publish_files(files: Mapping[str, bytes], target: Path, hub_folder: Path) -> bool:
    """Write a repo's files, those that differ; a new repo appears in one step."""
    if target.is_dir():
        for name in files:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
        changes = [write_if_changed(target / name, content) for name, content in files.items()]
        return any(changes)
    staging = Path(tempfile.mkdtemp(dir=hub_folder, prefix=".publish-"))
    try:
        for name, content in files.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(content)
        staging.chmod(0o755)
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return True
