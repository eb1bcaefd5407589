"""Full configurations as functions: partitions, MLflow runs and CLI flags name a recipe.

Belongs here: choices of values. Does not: anything that acts on them.
"""
