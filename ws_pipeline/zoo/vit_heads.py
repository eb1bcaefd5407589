"""A ViT classifier with a hidden layer before the last: transformers' pooler, then a linear layer.

transformers has no ViT classifier with such a head, but its ``ViTModel`` has the hidden layer: the
pooler, whose size and activation stand in config.json. So a repo is read with transformers alone::

    backbone = ViTModel.from_pretrained(repo)  # the pooler included
    head = load_file(f"{repo}/model.safetensors")
    pooled = backbone(pixel_values=images).pooler_output
    logits = pooled @ head["classifier.weight"].T + head["classifier.bias"]

The pooler's size is not the backbone's, so ``ViTForImageClassification`` refuses the file instead
of leaving the hidden layer out in silence. No I/O.
"""

from typing import cast

from torch import Tensor, nn
from transformers import ViTConfig, ViTModel, ViTPreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

HEAD_ACTIVATION = "gelu"


class ViTMlpHeadForImageClassification(ViTPreTrainedModel):  # type: ignore[no-untyped-call]
    """``vit`` with its pooler, and ``classifier`` over what the pooler gives."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        self.vit = ViTModel(config, add_pooling_layer=True)
        self.classifier = nn.Linear(cast("int", config.pooler_output_size), config.num_labels or 0)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        """Map images ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        pooled = self.vit(pixel_values).pooler_output
        return ImageClassifierOutput(logits=self.classifier(pooled))
