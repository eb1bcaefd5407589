"""New weights from latents: density, sampling, detokenising, BatchNorm conditioning.

Belongs here: everything that makes checkpoints that nobody trained. Does not: what they are worth
(:mod:`ws_pipeline.evaluation.generation`).
"""
