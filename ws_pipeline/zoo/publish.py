"""Copy a trained zoo into a hub's folder. No torch: publishing needs files only.

Files whose bytes do not change are not touched, so a hub that looks at times and digests sees no
change. A repo appears in the hub's folder whole or not at all.
"""

import re
import shutil
import tempfile
from pathlib import Path

from ws_pipeline.errors import ConfigError
from ws_pipeline.zoo.index import REPOS_FOLDER, read_index, write_if_changed

OWNER_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
REPO_FILES = ("README.md", "config.json", "model.safetensors")


def publish_zoo(folder: Path, hub_folder: Path, owner: str) -> int:
    """Copy a trained zoo's repos to ``hub_folder/owner/<name>``, those that differ.

    Cards name their ``base_model`` under ``owner``, whatever owner the zoo was trained with.

    Returns:
        Number of repos that were new or changed.

    Raises:
        ConfigError: When ``owner`` is no name of an account.
        MissingInputError: When ``folder`` holds no finished zoo.
    """
    if not OWNER_PATTERN.fullmatch(owner):
        raise ConfigError(f"owner must be letters, digits, '.', '_' and '-', got {owner!r}.")
    table = read_index(folder)
    (hub_folder / owner).mkdir(parents=True, exist_ok=True)
    return sum(
        _publish_repo(folder / REPOS_FOLDER / name, hub_folder / owner / name, old, owner)
        for name, old in table.select("name", "owner").iter_rows()
    )


def _publish_repo(source: Path, target: Path, old_owner: str, owner: str) -> bool:
    files = {name: (source / name).read_bytes() for name in REPO_FILES}
    card = files["README.md"].decode()
    files["README.md"] = card.replace(f"{old_owner}/", f"{owner}/").encode()
    if target.is_dir():
        changes = [write_if_changed(target / name, content) for name, content in files.items()]
        return any(changes)
    staging = Path(tempfile.mkdtemp(dir=target.parent.parent, prefix=".publish-"))
    try:
        for name, content in files.items():
            (staging / name).write_bytes(content)
        staging.chmod(0o755)
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return True
