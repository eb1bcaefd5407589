"""Does training on permuted views with a contrastive loss make an embedding that knows a model?

Trains `tiny` on the zoos of a home with and without permuted views and NT-Xent, several seeds each,
and reads three vectors from every backbone: the embedding as it is evaluated, the mean of the
windows' pooled latents, and the mean of the projection head's unit outputs. Prints, as Markdown:

- recall@1 of the parent, and drift, of unseen fine-tunes whose hidden units were permuted;
- R2 of a ridge probe of accuracy and generalisation gap over random splits by lineage, and in how
  many of them it beats s(W);
- the relative error of a held-out layer.

    python benchmarks/contrastive.py HOME [--steps N] [--seeds N] [--only NAME ...]
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ws_pipeline.backbone.embed import LatentSums, encode_batch, layer_vectors, pool_layers
from ws_pipeline.backbone.evaluate import reconstruct_models
from ws_pipeline.backbone.model import Backbone, pool_latents, untrained
from ws_pipeline.backbone.sweep import choose_window, layout_of, sweep_models
from ws_pipeline.evaluation.bootstrap import score_r2
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.probes import fit_probe, standardize
from ws_pipeline.evaluation.retrieval import relation_masks
from ws_pipeline.evaluation.statistics import pooled_statistics
from ws_pipeline.evaluation.targets import read_card_truth
from ws_pipeline.recipes import Recipe, recipe
from ws_pipeline.storage.store import Store
from ws_pipeline.studies.bench import Bench
from ws_pipeline.studies.composition import split_families
from ws_pipeline.studies.study import Cell, Population, Variant
from ws_pipeline.studies.training import CellTraining
from ws_pipeline.tokens.model_symmetry import draw_view, read_model_symmetry
from ws_pipeline.tokens.windows import ModelTokens

TARGETS = ("accuracy", "generalization_gap")
NUM_SPLITS = 20
PROJECTION_SIZE = 32
STATISTICS = "s(W)"

FloatArray = NDArray[np.float64]
Vectors = dict[str, FloatArray]


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all backbones are measured on.

    Attributes:
        store: Of the home.
        corpus: The zoos' rows.
        permuted: Rows of `corpus` that are seen permuted: unseen fine-tunes with a known symmetry.
        parents: Who is whose parent.
        truth: Target to values, NaN where unknown.
        statistics: s(W).
    """

    store: Store
    corpus: pl.DataFrame
    permuted: NDArray[np.int64]
    parents: NDArray[np.bool_]
    truth: Mapping[str, FloatArray]
    statistics: FloatArray


def read_ground(store: Store, corpus: pl.DataFrame) -> Ground:
    """Read tables and find who can be permuted."""
    keys = store.tables.keys("weights/layers")
    layers = pl.concat([store.tables.scan(key).collect() for key in keys], how="diagonal_relaxed")
    layers = layers.join(corpus, on=["hub_id", "revision"], how="semi")
    parents = relation_masks(corpus, store.tables.scan("corpus/lineage").collect())["parent"]
    truth = read_card_truth(corpus, TARGETS).targets
    unseen = np.flatnonzero((corpus["split"] != "train").to_numpy() & parents.any(axis=1))
    manifests = corpus["manifest"].to_list()
    known = [row for row in unseen if read_model_symmetry(store, manifests[row]).symmetry.groups]
    return Ground(
        store=store,
        corpus=corpus,
        permuted=np.array(known, dtype=np.int64),
        parents=parents,
        truth={name: truth[name].fill_null(np.nan).to_numpy() for name in TARGETS},
        statistics=pooled_statistics(corpus, layers).values,
    )


def variants(num_steps: int) -> Iterator[tuple[str, Recipe]]:
    """Yield what is trained."""
    base = recipe("tiny")
    base = replace(
        base,
        training=replace(
            base.training, num_steps=num_steps, evaluate_every=num_steps, checkpoint_every=num_steps
        ),
        backbone=replace(base.backbone, projection_size=PROJECTION_SIZE),
    )
    permuted = replace(base, views=replace(base.views, permutation=True))
    plain = replace(permuted, views=replace(permuted.views, mixtures=0.0, flip_signs=False))
    yield "as it is", base
    yield "permuted, 0", permuted
    yield "permuted, 0.05", with_weight(permuted, 0.05)
    yield "permuted, 0.5", with_weight(permuted, 0.5)
    yield "permuted, 0.5, no mixtures", with_weight(plain, 0.5)
    yield "permuted, 0.5, three times as long", with_steps(with_weight(plain, 0.5), 3 * num_steps)


def with_weight(base: Recipe, weight: float) -> Recipe:
    """Return a recipe with another contrastive weight."""
    return replace(base, loss=replace(base.loss, contrastive_weight=weight))


def with_steps(base: Recipe, num_steps: int) -> Recipe:
    """Return a recipe of another length."""
    training = replace(
        base.training, num_steps=num_steps, evaluate_every=num_steps, checkpoint_every=num_steps
    )
    return replace(base, training=training)


def open_tokens(ground: Ground, backbone: Backbone) -> tuple[list[ModelTokens], list[ModelTokens]]:
    """Return all models, and those that are seen permuted in another order of their units."""
    layout, rows = layout_of(backbone), ground.corpus.to_dicts()
    models = [ModelTokens.open(ground.store, row, layout) for row in rows]
    copies = []
    for row in ground.permuted.tolist():
        symmetry = read_model_symmetry(ground.store, rows[row]["manifest"])
        view = draw_view(models[row].values, symmetry, (0, row))
        copies.append(ModelTokens(models[row].layers, view, layout))
    return models, copies


@torch.no_grad()
def read_vectors(backbone: Backbone, models: Sequence[ModelTokens]) -> Vectors:
    """Return each kind of vector of every model."""
    window, halo = choose_window(backbone, None, None)
    size, device = backbone.config.latent_size, torch.device("cpu")
    sums = [LatentSums.zeros(len(model.layers), size) for model in models]
    pooled: list[list[FloatArray]] = [[] for _ in models]
    projected: list[list[FloatArray]] = [[] for _ in models]
    for batch in sweep_models(models, window=window, halo=halo, device=device):
        latents = encode_batch(backbone, batch)
        layers = batch.windows.positions[..., 1].numpy()
        means = pool_latents(torch.from_numpy(latents).float(), batch.windows.mask.any(dim=-1))
        assert backbone.project is not None
        units = functional.normalize(backbone.project(means), dim=-1).double().numpy()
        for row, chunk in enumerate(batch.chunks):
            sums[chunk.model].add(layers[row, chunk.kept], latents[row, chunk.kept])
            pooled[chunk.model].append(means[row].double().numpy())
            projected[chunk.model].append(units[row])
    embedded = [
        pool_layers(layer_vectors(own, [asdict(layer) for layer in model.layers]))
        for own, model in zip(sums, models, strict=True)
    ]
    return {
        "embedding": np.array(embedded),
        "pooled latents": np.array([np.mean(each, axis=0) for each in pooled]),
        "projection": np.array([np.mean(each, axis=0) for each in projected]),
    }


def find_parents(ground: Ground, own: FloatArray, moved: FloatArray) -> dict[str, float]:
    """Return recall@1 of the parent and median drift of permuted copies."""
    stacked = np.vstack([own, moved])
    reference = np.arange(len(stacked)) < len(own)
    scaled = standardize(stacked, reference)
    own, moved = scaled[reference], scaled[~reference]
    families = ground.corpus["family"].to_numpy().astype(str)
    known, hits, drifts = ground.parents.any(axis=0), [], []
    for copy, row in enumerate(ground.permuted.tolist()):
        others = np.arange(len(own)) != row
        rivals = np.linalg.norm(own[others] - own[row], axis=1).min()
        drifts.append(np.linalg.norm(moved[copy] - own[row]) / max(rivals, 1e-12))
        candidates = np.flatnonzero(known & others & (families == families[row]))
        nearest = candidates[np.linalg.norm(own[candidates] - moved[copy], axis=1).argmin()]
        hits.append(ground.parents[row, nearest])
    return {"recall": float(np.mean(hits)), "drift": float(np.median(drifts))}


def probe_splits(ground: Ground, values: FloatArray, target: str) -> FloatArray:
    """Return R2 on the test lineages of each random split."""
    truth = ground.truth[target]
    usable = np.isfinite(truth)
    lineages = ground.corpus["lineage_root"].to_numpy().astype(str)
    roots = np.unique(lineages)
    scores = []
    for split in range(NUM_SPLITS):
        order = np.random.default_rng(split).permutation(len(roots)) / len(roots)
        share = dict(zip(roots, order, strict=True))
        place = np.array([share[root] for root in lineages])
        train, test = (place < 0.6) & usable, (place >= 0.8) & usable
        probe = fit_probe(
            values,
            np.where(usable, truth, 0.0),
            train=train,
            val=(place >= 0.6) & (place < 0.8) & usable,
            lineages=lineages.tolist(),
            config=EvaluationConfig(),
        )
        scores.append(score_r2(truth[test], probe.prediction[test]))
    return np.array(scores)


def measure(ground: Ground, backbone: Backbone) -> dict[str, dict[str, Any]]:
    """Return every number of each kind of vector."""
    models, copies = open_tokens(ground, backbone)
    own, moved = read_vectors(backbone, models), read_vectors(backbone, copies)
    found: dict[str, dict[str, Any]] = {}
    for kind, values in own.items():
        found[kind] = find_parents(ground, values, moved[kind])
        for target in TARGETS:
            found[kind][target] = probe_splits(ground, values, target).tolist()
    held_out = ground.corpus.filter(pl.col("split") == "test")
    errors = reconstruct_models(backbone, ground.store, held_out)["relative_error"]
    found["embedding"]["error"] = float(np.median(errors.filter(errors.is_finite()).to_numpy()))
    return found


def show(records: Sequence[Mapping[str, Any]], baseline: Mapping[str, FloatArray]) -> None:
    """Print a row per variant and kind of vector: means over seeds, quartiles over splits."""
    print(
        "| trained | vector | seeds | parent, permuted | drift | "
        + " | ".join(TARGETS)
        + " | error |\n|---|---|---|---|---|---|---|---|"
    )
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        for kind, numbers in record["vectors"].items():
            groups.setdefault((record["variant"], kind), []).append(numbers)
    for (variant, kind), parts in groups.items():
        cells = [f"{np.mean([p[m] for p in parts]):.2f}" for m in ("recall", "drift")]
        for target in TARGETS:
            scores = np.array([part[target] for part in parts])
            low, middle, high = np.percentile(scores, [25, 50, 75])
            wins = float((scores > baseline[target]).mean())
            cells.append(f"{middle:.2f} [{low:.2f}, {high:.2f}] ({wins:.2f})")
        errors = [part["error"] for part in parts if "error" in part]
        cells.append(f"{np.mean(errors):.3f}" if errors else "")
        print(f"| {variant} | {kind} | {len(parts)} | {' | '.join(cells)} |")
    for target, scores in baseline.items():
        low, middle, high = np.percentile(scores, [25, 50, 75])
        print(f"\n{STATISTICS}, {target}: {middle:.2f} [{low:.2f}, {high:.2f}]")


def main() -> None:
    """Train what is missing, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = Store.open(options.home / "store")
    corpus = store.tables.scan("corpus/splits").collect()
    zoos, _ = split_families(corpus)
    corpus = corpus.filter(pl.col("family").is_in(zoos))
    ground = read_ground(store, corpus)
    print(f"{len(corpus)} models, {len(ground.permuted)} permuted fine-tunes\n", flush=True)
    baseline = {target: probe_splits(ground, ground.statistics, target) for target in TARGETS}
    folder = options.home / "studies" / "contrastive"
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    bench = Bench(home=options.home, store=store, corpus=corpus, study="contrastive")
    for seed in range(options.seeds):
        for name, chosen in [*variants(options.steps), ("untrained", None)]:
            path = folder / f"{name}-{options.steps}-{seed}.json"
            wanted = not options.only or name in options.only
            if not path.exists() and wanted:
                began = time.process_time()
                backbone = make_backbone(bench, name, chosen, options.steps, seed)
                record = {"variant": name, "seed": seed, "vectors": measure(ground, backbone)}
                path.write_text(json.dumps(record))
                print(
                    f"{name}, seed {seed}: {time.process_time() - began:.0f} CPU-seconds",
                    flush=True,
                )
            if path.exists():
                records.append(json.loads(path.read_text()))
    show(records, baseline)


def make_backbone(
    bench: Bench, name: str, chosen: Recipe | None, num_steps: int, seed: int
) -> Backbone:
    """Return a trained backbone, or one that has seen nothing."""
    if chosen is None:
        _, base = next(variants(num_steps))
        config = replace(base.backbone, window_size=base.training.window_size)
        return untrained(config, seed)
    variant = Variant(name=name, recipe=chosen, factors={}, population=Population())
    job = bench.job(Cell(variant=variant, seed=seed))
    with CellTraining(bench.store, job, bench.training_rows(Population())) as training:
        return training.run()


if __name__ == "__main__":
    main()
