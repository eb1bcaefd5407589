"""Full configurations as functions: partitions, MLflow runs and CLI flags name a recipe.

Belongs here: choices of values. Does not: anything that acts on them.
"""

from ws_pipeline.recipes.catalog import RECIPE_NAMES, recipe
from ws_pipeline.recipes.recipe import Recipe, flatten, to_dict
from ws_pipeline.settings import DEFAULT_RECIPE

__all__ = ["DEFAULT_RECIPE", "RECIPE_NAMES", "Recipe", "flatten", "recipe", "to_dict"]
