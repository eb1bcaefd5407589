"""A hub folder of tiny models that are made, not trained: a second's worth of repos."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save

CARD = """---
license: apache-2.0
tags: [{family}]
{base}generating_factors: {{seed: {seed}}}
model-index:
- name: {name}
  results:
  - task: {{type: image-classification}}
    dataset: {{name: made-up, type: made-up}}
    metrics:
    - {{type: accuracy, value: {accuracy}}}
    - {{type: generalization_gap, value: {gap}}}
---
# {name}
"""


def write_repo(
    hub: Path, family: str, seed: int, *, owner: str = "lab", base_model: str = ""
) -> str:
    """Write one repo of two layers; its repo id."""
    generator = np.random.default_rng([seed, *family.encode()])
    name = f"{family}-{seed}"
    folder = hub / owner / name
    folder.mkdir(parents=True, exist_ok=True)
    width = 8 + 4 * len(family)
    tensors = {
        "hidden.weight": generator.normal(0, 0.1 + seed / 50, (width, 16)).astype(np.float32),
        "hidden.bias": generator.normal(0, 0.1, width).astype(np.float32),
        "head.weight": generator.normal(0, 0.2, (10, width)).astype(np.float32),
        "head.bias": np.zeros(10, dtype=np.float32) + np.float32(seed) / 7,
    }
    (folder / "model.safetensors").write_bytes(save(tensors))
    (folder / "config.json").write_text(json.dumps({"model_type": family, "seed": seed}))
    base = f"base_model: {base_model}\n" if base_model else ""
    card = CARD.format(
        family=family, name=name, seed=seed, base=base, accuracy=0.5 + seed / 100, gap=seed / 200
    )
    (folder / "README.md").write_text(card)
    return f"{owner}/{name}"


def write_hub(hub: Path, *, families: tuple[str, ...] = ("mlp", "cnn"), num_repos: int = 3) -> None:
    """Write some repos of some families."""
    for family in families:
        for seed in range(num_repos):
            write_repo(hub, family, seed)
