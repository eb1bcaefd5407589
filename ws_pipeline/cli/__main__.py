"""``python -m ws_pipeline.cli``: the command line where no script is installed."""

from ws_pipeline.cli.app import main

main()
