"""What a representation is good for: probes, retrieval, reconstruction, and the mandatory baselines.

Belongs here: numbers with intervals, and the report that shows them. Does not: training of backbones.
"""
