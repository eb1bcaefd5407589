"""What a browser asks the webserver: launching, looking, ending, by its own GraphQL."""

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

SELECTOR = {"repositoryName": "__repository__", "repositoryLocationName": "ws_pipeline"}
FINISHED = {"SUCCESS", "FAILURE", "CANCELED"}

LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on InvalidSubsetError { message }
    ... on PipelineNotFoundError { message }
  }
}
"""
ADD_PARTITION = """
mutation Add($name: String!, $key: String!, $repository: RepositorySelector!) {
  addDynamicPartition(
    partitionsDefName: $name, partitionKey: $key, repositorySelector: $repository
  ) { __typename ... on PythonError { message } }
}
"""
RUNS = """
query Runs { runsOrError(limit: 100) { ... on Runs { results {
  runId status parentRunId rootRunId pipelineName stepKeysToExecute
  tags { key value }
} } } }
"""
EVENTS = """
query Events($id: ID!) { logsForRun(runId: $id, limit: 1000) { ... on EventConnection { events {
  __typename
  ... on MessageEvent { message stepKey }
  ... on ErrorEvent { error { message causes { message } } }
  ... on MaterializationEvent { assetKey { path } }
} } } }
"""


@dataclass(frozen=True, kw_only=True)
class Webserver:
    """A running webserver."""

    url: str

    def ask(self, query: str, **variables: Any) -> Any:
        """One query; its answer's data."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/graphql", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            said = json.load(answer)
        assert "errors" not in said, said["errors"]
        return said["data"]

    def add_family(self, name: str) -> None:
        """Add a partition, as the button of the partitions page does."""
        data = self.ask(ADD_PARTITION, name="family", key=name, repository=SELECTOR)
        assert data["addDynamicPartition"]["__typename"] == "AddDynamicPartitionSuccess", data

    def launch(self, job: str, partition: str = "") -> str:
        """Launch a job for one partition, or without; the run's id."""
        tags = [{"key": "dagster/partition", "value": partition}] if partition else []
        params = {
            "selector": {**SELECTOR, "jobName": job},
            "mode": "default",
            "executionMetadata": {"tags": tags},
        }
        said = self.ask(LAUNCH, params=params)["launchPipelineExecution"]
        assert said["__typename"] == "LaunchRunSuccess", said
        return str(said["run"]["runId"])

    def runs(self) -> dict[str, dict[str, Any]]:
        """Every run by its id."""
        found = self.ask(RUNS)["runsOrError"]["results"]
        return {run["runId"]: run for run in found}

    def attempts(self, run_id: str) -> list[dict[str, Any]]:
        """A run and those that took its place, oldest first."""
        runs = [r for r in self.runs().values() if run_id in (r["runId"], r["rootRunId"])]
        return sorted(runs, key=lambda run: run["runId"] != run_id)

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """A run's events."""
        return list(self.ask(EVENTS, id=run_id)["logsForRun"]["events"])

    def has_started(self, run_id: str, step: str) -> bool:
        """Whether a step of a run began."""
        return any(
            event["__typename"] == "ExecutionStepStartEvent" and event["stepKey"] == step
            for event in self.events(run_id)
        )

    def finish(self, run_id: str, *, seconds: float = 300.0) -> dict[str, Any]:
        """Wait until a run, or what took its place, went well; that one.

        Raises:
            AssertionError: If none did in time, with what was said.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            attempts = self._attempts_if_up(run_id)
            for run in attempts:
                if run["status"] == "SUCCESS":
                    return run
            time.sleep(0.5)
        said = {run["runId"]: (run["status"], self.events(run["runId"])) for run in attempts}
        raise AssertionError(json.dumps(said, indent=1)[-6000:])

    def _attempts_if_up(self, run_id: str) -> list[dict[str, Any]]:
        try:
            return self.attempts(run_id)
        except (urllib.error.URLError, ConnectionError):
            return []
