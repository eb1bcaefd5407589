"""What an import of the packages pulls in."""

import subprocess
import sys


def test_hub_and_storage_need_no_deep_learning_framework() -> None:
    code = """
import pkgutil, sys, importlib, ws_pipeline.hub, ws_pipeline.storage
for package in (ws_pipeline.hub, ws_pipeline.storage):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
heavy = {"torch", "transformers", "mlflow", "dagster", "accelerate"} & set(sys.modules)
sys.exit(f"imported {sorted(heavy)}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
