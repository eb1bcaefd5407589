"""The same store tests run against a folder and against a real S3 protocol server."""

from ws_pipeline_tests.storage.stores import store

__all__ = ["store"]
