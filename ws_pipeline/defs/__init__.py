"""The Dagster shell: assets, checks, partitions, resources, IO managers, jobs, schedules, sensors.

Belongs here: wiring only, a few lines an asset. Does not: any step that could run without Dagster.
The only package that imports ``dagster``; torch and mlflow are imported when an asset runs.
"""
