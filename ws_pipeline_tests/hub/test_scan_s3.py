"""The same scan on a real S3 protocol server; and one that is killed there."""

from pathlib import Path

import pytest

from ws_pipeline.errors import HubError
from ws_pipeline.hub.scan_book import ScanBook
from ws_pipeline_tests.hub.scan_hubs import everything, make_hub, open_book, scan, serve, stored
from ws_pipeline_tests.storage.s3_server import S3Server
from ws_pipeline_tests.storage.stores import open_s3


def test_a_book_on_s3_has_the_bytes_of_one_on_disk(
    s3_server: S3Server,
    tmp_path: Path,
) -> None:
    hub = make_hub(120, seed=3)
    local, remote = open_book(tmp_path / "local"), ScanBook.of(open_s3(s3_server, tmp_path))
    with serve(hub) as endpoint:
        for day in (0, 1):
            scan(endpoint, local, day=day, full=True)
            with pytest.raises(HubError, match="stopped"):
                scan(endpoint, remote, day=day, full=True, on_progress=_stop)
            scan(endpoint, remote, day=day, full=True)
            assert stored(remote) == stored(local)
            hub.advance(40)
    assert everything(remote).equals(everything(local))


def _stop(_: object) -> None:
    raise HubError("stopped")
