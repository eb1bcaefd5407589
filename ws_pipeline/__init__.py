"""Weight Space Pipeline: from a model hub to a representation of models.

The packages, high to low; each imports only from those below it:

``cli``, ``definitions``  the two ways in: a shell and Dagster.
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

__version__ = "0.1.0"
