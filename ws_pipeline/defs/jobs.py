"""Named selections of assets, for the launchpad, schedules and sensors. No I/O.

Where their steps run is the deployment's choice (`defs.executors`), not a job's.
"""

import dagster as dg

from ws_pipeline.defs.assets.backbone import EMBEDDINGS, MODEL
from ws_pipeline.defs.assets.corpus import SPLITS
from ws_pipeline.defs.assets.evaluation import LEADERBOARD, RESULTS
from ws_pipeline.defs.assets.hub import FILES, HEADERS, REPOS, SELECTION
from ws_pipeline.defs.assets.tokens import SHARDS
from ws_pipeline.defs.assets.weights import LAYERS
from ws_pipeline.defs.assets.zoo import DIVERSITY
from ws_pipeline.defs.assets.zoo import MODELS as ZOO_MODELS

crawl_family = dg.define_asset_job(
    "crawl_family",
    selection=dg.AssetSelection.assets(REPOS),
    description="Ask the hub what is new in one family.",
)
refresh_family = dg.define_asset_job(
    "refresh_family",
    selection=dg.AssetSelection.assets(HEADERS, SELECTION, FILES, LAYERS, SHARDS),
    description="One family, from its ledger to token shards. Stored verdicts are reused.",
)
refresh_corpus = dg.define_asset_job(
    "refresh_corpus",
    selection=dg.AssetSelection.assets(SPLITS),
    description="Split what all families hold now, along lineages.",
)
train_backbone = dg.define_asset_job(
    "train_backbone",
    selection=dg.AssetSelection.assets(MODEL),
    description="Train a recipe's backbone on the current corpus.",
)
evaluate = dg.define_asset_job(
    "evaluate",
    selection=dg.AssetSelection.assets(EMBEDDINGS, *RESULTS),
    description="Embed the corpus with a recipe's backbone, and all its evaluations.",
)
write_leaderboard = dg.define_asset_job(
    "write_leaderboard",
    selection=dg.AssetSelection.assets(LEADERBOARD),
    description="All recipes side by side, and the report.",
)
make_zoo = dg.define_asset_job(
    "make_zoo",
    selection=dg.AssetSelection.assets(ZOO_MODELS, DIVERSITY),
    description="Train a zoo, publish it to the embedded hub, measure its diversity.",
)

ALL_JOBS = [
    crawl_family,
    refresh_family,
    refresh_corpus,
    train_backbone,
    evaluate,
    write_leaderboard,
    make_zoo,
]
