"""What a representation is good for: probes, retrieval, reconstruction, mandatory baselines.

Belongs here: numbers with intervals and the report that shows them. Does not: training backbones.
"""
