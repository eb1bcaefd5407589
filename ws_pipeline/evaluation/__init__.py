"""What a representation is good for: probes, retrieval, reconstruction, mandatory baselines.

Belongs here: numbers with intervals, the controls beside them, and the report that shows them. Does
not: training of backbones, or reading of weights. Everything is a pure function over polars frames
and numpy arrays; only :mod:`ws_pipeline.evaluation.report` writes a file.
"""
