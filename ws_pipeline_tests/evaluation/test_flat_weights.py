import numpy as np
import polars as pl

from ws_pipeline.evaluation.flat_weights import flat_weights
from ws_pipeline.weights.layer_matrix import LayerMatrix


def test_flat_weights_need_equal_shapes():
    layers = [LayerMatrix(name="a", role="linear", values=np.eye(2))]
    plan = [{"name": "a", "rows": 2, "cols": 2}]
    corpus = pl.DataFrame(
        {"shard_sha256": ["x", "y"], "layers": [plan, plan], "num_values": [4, 4]}
    )
    flat = flat_weights(corpus, lambda _: iter(layers))
    assert flat is not None
    assert flat.values.tolist() == [[1.0, 0.0, 0.0, 1.0]] * 2
    other = corpus.with_columns(num_values=pl.Series([4, 6]))
    assert flat_weights(other, lambda _: iter(layers)) is None
