"""Permutation symmetry: reorderings of hidden units that leave a network's function as it is.

``groups`` says what shares one permutation, ``finding`` decides it for a model from names, shapes
and config, ``permutation`` draws, applies and inverts, ``matching`` and ``alignment`` fit one model
to another, ``matrix_order`` says what becomes of a layer's matrix. The wirings
themselves are in ``chains``, ``residual_networks`` and ``transformers``. No I/O, no torch.
"""
