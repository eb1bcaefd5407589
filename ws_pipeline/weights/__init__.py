"""What is inside a checkpoint: hardened headers, layer roles and plans, statistics, normalisation.

Belongs here: decisions from names, shapes, dtypes and values of tensors, one layer at a time.
Does not: tokens and windows (``tokens``), networks that run (``zoo``, ``backbone``). numpy only.
"""
