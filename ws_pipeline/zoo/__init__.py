"""Populations trained on purpose: grids, data, architectures, many-at-once training, publishing.

Belongs here: ground truth whose generating factors are known. Does not: crawling it back (``hub``).
"""
