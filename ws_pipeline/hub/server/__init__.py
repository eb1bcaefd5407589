"""A hub to develop and test against: a folder of repos, or a simulated population, over HTTP.

Belongs here: everything that answers requests of the Hub API. Does not: anything that sends them
(``hub.client``). Listens on loopback sockets, reads the served folder.

    with serve_in_thread(folder) as endpoint:
        HfApi(endpoint=endpoint).list_models(filter="bert")
"""

from ws_pipeline.hub.server.endpoint import (
    serve,
    serve_app,
    serve_app_in_thread,
    serve_in_thread,
)
from ws_pipeline.hub.server.routes import make_app

__all__ = ["make_app", "serve", "serve_app", "serve_app_in_thread", "serve_in_thread"]
