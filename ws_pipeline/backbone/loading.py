"""A trained backbone, ready for use: from its folder, on the best device that there is. Does I/O.

What it is: the one place that chooses a device for embedding and generating, for commands, assets
and Python alike. Not here: the training, whose devices Accelerate chooses.
"""

from pathlib import Path

import torch

from ws_pipeline.backbone.model import Backbone


def best_device() -> torch.device:
    """Return the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_backbone(source: Backbone | str | Path) -> Backbone:
    """Return a backbone on the best device; one that is loaded already stays where it is.

    Args:
        source: A backbone, its folder, or a repo id as huggingface_hub takes it.
    """
    if isinstance(source, Backbone):
        return source
    return Backbone.from_pretrained(source).to(best_device())
