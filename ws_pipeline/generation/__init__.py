"""New weights from latents: density, sampling, detokenising, BatchNorm conditioning.

Belongs here: everything that makes checkpoints that nobody trained. Nothing is built yet.
"""
