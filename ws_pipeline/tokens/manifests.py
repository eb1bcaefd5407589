"""What manifests say of a shard, read back and checked. No I/O.

Not here: where manifests lie (a store: ``shards``; a folder: ``pack_folder``).
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ws_pipeline.errors import IntegrityError
from ws_pipeline.tokens.records import TokenLayer, token_layer_from_record
from ws_pipeline.tokens.shard_format import SourceFile


def read_sources(manifest: Mapping[str, Any]) -> list[SourceFile]:
    """Return the source files of a manifest; their names must stay inside the folder they go to."""
    sources = [SourceFile(**source) for source in manifest["sources"]]
    for source in sources:
        path = PurePosixPath(source.name)
        if path.is_absolute() or ".." in path.parts or "\\" in source.name or not path.name:
            raise IntegrityError(
                f"A source file must have a relative name without '..', not {source.name!r}."
            )
    return sources


def read_token_layers(manifest: Mapping[str, Any]) -> list[TokenLayer]:
    """Return the token layers of a manifest or of a table's row."""
    return [token_layer_from_record(record) for record in manifest["layers"]]
