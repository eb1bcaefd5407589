"""Weight Space Pipeline: from a model hub to a representation of models.

In Python: ``Backbone``, ``read_layers``, ``tokenize``, ``embed``, ``generate``, ``load_zoo``
(``api``); each is imported when it is first asked for, so that importing the package costs nothing.

The packages, high to low; each imports only from those below it:

``cli``, ``definitions``, ``api``  the three ways in: a shell, Dagster and Python.
``defs``                  Dagster only: assets, checks, resources, jobs.
``recipes``               full configurations as functions.
``evaluation``            what a representation is good for, with its baselines.
``generation``            new weights from latents.
``backbone``              the weight-space autoencoder: model, training, embedding.
``zoo``                   populations trained on purpose.
``tokens``                layouts, shards and windows of weight tokens.
``weights``               safetensors headers, layer roles, statistics, normalisation.
``hub``                   crawl, ledger, triage, selection, lineage, download, embedded server.
``storage``               blobs, manifests, snapshots, tables.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "Backbone": "ws_pipeline.backbone.model",
    "embed": "ws_pipeline.api",
    "generate": "ws_pipeline.api",
    "load_zoo": "ws_pipeline.api",
    "read_layers": "ws_pipeline.api",
    "tokenize": "ws_pipeline.api",
}
__all__ = ["Backbone", "__version__", "embed", "generate", "load_zoo", "read_layers", "tokenize"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    """Name what there is, for completion in a shell."""
    return sorted({*globals(), *_PLACES})
