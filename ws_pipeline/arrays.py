"""Names of the axes that shapes in signatures are written with.

One place, so that ``"batch window token_size"`` means the same in every file. Shapes are checked in
tests only, by the jaxtyping import hook; nothing here costs anything at run time. No I/O.

====================  ==========================================================================
``batch``             windows in one step
``window``            consecutive tokens of one model
``token_size``        weights in one token
``latent_size``       numbers in one token's latent
``width``             the backbone's hidden size
``heads``             attention heads
``rows``, ``cols``    outputs of a layer, and its inputs plus one for the bias
``models``            models in a population, or trained side by side in a zoo
``features``          columns of a design matrix
``classes``           labels of a classification task
====================  ==========================================================================
"""

NUM_POSITION_COORDINATES = 3
"""A token's position: (place in the model, layer, place in the layer). Source: SANE, 3.1."""

NUM_SCALE_FEATURES = 2
"""What normalisation removed and the token carries along: (mean, log std) of its layer."""
