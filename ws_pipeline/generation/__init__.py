"""New weights from latents: density, sampling, detokenising, BatchNorm conditioning.

Belongs here: everything that makes checkpoints that nobody trained. Empty until its issue is taken up.
"""
