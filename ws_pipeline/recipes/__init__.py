"""Full configurations as functions: a Dagster partition, an MLflow run and a CLI flag name a recipe.

Belongs here: choices of values. Does not: anything that acts on them.
"""
