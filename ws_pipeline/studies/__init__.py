"""Studies: many variants of one recipe, each trained and measured alike, in one table.

Belongs here: what is varied, the cells of a study, their table and figure. Does not: how a
backbone is trained (``backbone``), what a measurement is (``evaluation``), who asks (``cli``,
``defs``).
"""
