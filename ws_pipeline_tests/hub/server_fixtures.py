"""Repos written to a folder, for the tests of the embedded hub."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

CARD = """---
license: {licence}
library_name: transformers
pipeline_tag: fill-mask
tags: [tiny, {kind}]
datasets: [digits]
{extra}
model-index:
- name: {name}
  results:
  - task: {{type: fill-mask}}
    dataset: {{type: digits, name: Digits}}
    metrics: [{{type: accuracy, value: 0.5}}]
---
# {name}
"""


def write_repo(
    hub: Path,
    repo_id: str,
    *,
    kind: str = "bert",
    licence: str = "apache-2.0",
    extra: str = "",
    settings: dict[str, object] | None = None,
    seed: int = 0,
) -> Path:
    folder = hub / repo_id
    folder.mkdir(parents=True)
    config = {"model_type": kind, "architectures": [f"{kind.title()}Model"], "hidden_size": 4}
    (folder / "config.json").write_text(json.dumps(config))
    card = CARD.format(licence=licence, kind=kind, extra=extra, name=Path(repo_id).name)
    (folder / "README.md").write_text(card)
    generator = np.random.default_rng(seed)
    tensors = {
        "a.weight": generator.normal(size=(6, 4)).astype(np.float32),
        "a.bias": generator.normal(size=6).astype(np.float16),
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "extra").mkdir()
    (folder / "extra" / "notes.txt").write_text("notes\n")
    if settings is not None:
        (folder / ".hub.json").write_text(json.dumps(settings))
    return folder
