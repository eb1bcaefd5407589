"""All hostile inputs by their names."""

from ws_pipeline_tests.abuse import headers, network, repos
from ws_pipeline_tests.abuse.case import Case


def collect() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for module in (headers, repos, network):
        for case in module.cases():
            assert case.key not in found, case.key
            found[case.key] = case
    return found


CASES = collect()
