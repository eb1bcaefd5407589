"""From a hub to verified files: ledger, triage, selection, lineage, download, embedded server.

Belongs here: everything that talks to a model hub or decides on what a hub says.
Does not: what is inside a safetensors file (``weights``). No deep-learning framework.
"""
