"""`ws-pipeline`: arguments in, calls to the packages below, tables and exit codes out.

Belongs here: parsing, what is printed, exit codes. Does not: any decision about models, hubs or
runs. Nothing heavy (torch, dagster, polars, mlflow) is imported before a command that needs it
runs, so that ``ws-pipeline --help`` answers at once.

Exit codes: 0 done, 1 failed, 2 refused or misused, 130 interrupted. A refusal is one line on
stderr, ``error[<reason>]: <sentence>``, with a code of :class:`ws_pipeline.errors.Reason`.
"""

from ws_pipeline.cli.app import app, main

__all__ = ["app", "main"]
