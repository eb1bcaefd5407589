"""One module per asset group. Every body is a few lines: load, call the pure function, finish.

Belongs here: which function makes which asset of what, its partitions, its descriptive fields. Does
not: any step that could run without Dagster. Torch, transformers and mlflow are imported inside
bodies.
"""
