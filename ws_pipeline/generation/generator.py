"""From anchors to new models of their shape: encode, draw, decode. No I/O.

Every draw has its own random stream, named by (seed, index): the tenth model is the same whether
ten or a hundred are made. What to keep of the draws is decided with data (``selection``).
"""

from collections.abc import Sequence

import numpy as np

from ws_pipeline.backbone.model import Backbone
from ws_pipeline.backbone.sweep import layout_of
from ws_pipeline.errors import Reason, RefusedError
from ws_pipeline.generation.codes import ModelCode, decode_models, encode_models
from ws_pipeline.generation.config import DensityConfig
from ws_pipeline.generation.density import Density
from ws_pipeline.generation.template import Template, Weights


class Generator:
    """Makes models like the anchors.

    Args:
        backbone: On the device that it shall run on.
        template: The anchors' shape.
        anchors: Weights of that shape, aligned if they shall be mixed.
        config: What is drawn from.
    """

    def __init__(
        self,
        backbone: Backbone,
        template: Template,
        anchors: Sequence[Weights],
        config: DensityConfig,
    ) -> None:
        if not anchors:
            raise RefusedError("Generation needs at least one anchor.", reason=Reason.MISUSE)
        self._backbone = backbone
        self._template = template
        layout = layout_of(backbone)
        models = [template.to_tokens(weights, layout) for weights in anchors]
        self._shape = models[0]
        self._codes = encode_models(backbone, models)
        self._density = Density(self._codes, config)

    def draw(self, num: int, *, seed: int) -> list[Weights]:
        """Draw models; the same for the same seed, whatever their number.

        Running statistics are the template's: estimate them anew (``batch_norm``).
        """
        codes = [self._density.draw(np.random.default_rng((seed, index))) for index in range(num)]
        return self._decode(codes)

    def draw_near(self, num: int, *, seed: int) -> list[Weights]:
        """Draw models near each anchor of a `model-kde`: `num` near the first, then the next."""
        codes = [
            self._density.draw(np.random.default_rng((seed, index)), followed=index // num)
            for index in range(num * self._density.num_anchors)
        ]
        return self._decode(codes)

    def reconstruct(self) -> list[Weights]:
        """Return the anchors encoded and decoded, nothing drawn."""
        return self._decode(self._codes)

    def _decode(self, codes: Sequence[ModelCode]) -> list[Weights]:
        decoded = decode_models(self._backbone, codes, self._shape)
        return [self._template.to_weights(matrices) for matrices in decoded]
