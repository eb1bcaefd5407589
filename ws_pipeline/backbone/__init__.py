"""The weight-space autoencoder: configuration, positions, model, loss, views, training, embedding.

Belongs here: the one network trained over all models. Does not: making tokens (``tokens``).
"""
