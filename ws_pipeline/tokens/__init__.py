"""Weights as token sequences: layouts, shards, windows for training, the corpus and its splits.

Belongs here: arithmetic from layer tables to tokens, masks and positions, and back to checkpoints.
Does not: models that consume tokens (``backbone``). numpy only.
"""
