"""Content-addressed blobs, create-only manifests, immutable snapshots and tables, on fsspec.

Belongs here: how bytes and tables are laid out, and published so that a kill leaves no half.
Does not: what the bytes mean. Imports nothing of the project but ``errors``. Does I/O.
"""
