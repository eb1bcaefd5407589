"""Start a training from an asset, hear from it through Dagster Pipes, leave nothing behind.

Belongs here: `accelerate launch` on this machine. Does not: what is trained. Another launcher
(Kubernetes, Ray, SLURM) is a resource with the same `run`. Dagster's own PipesSubprocessClient
signals only its direct child; see :mod:`ws_pipeline.defs.supervisor` for why that is not enough.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import (
    DagsterExecutionInterruptedError,
    PipesTempFileContextInjector,
    PipesTempFileMessageReader,
    open_pipes_session,
)
from dagster._core.pipes.client import PipesClientCompletedInvocation
from pydantic import Field


class LauncherResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Runs a module under `accelerate launch` in a process group of its own."""

    grace_seconds: float = Field(
        default=60.0, description="From SIGTERM to SIGKILL: time to write a checkpoint"
    )
    accelerate: list[str] = Field(
        default=[], description="Command in place of `python -m accelerate...`; tests use it"
    )

    def run(
        self,
        *,
        context: dg.AssetExecutionContext,
        module: str,
        arguments: Sequence[str],
        num_processes: int = 1,
        extras: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> PipesClientCompletedInvocation:
        """Run a module to its end.

        Raises:
            dagster.Failure: If it ended with another code than 0; what it reported last is in it.
        """
        with open_pipes_session(
            # The asset context's own `run_id`, which Pipes reads, is deprecated (1.13).
            context=context.op_execution_context,
            context_injector=PipesTempFileContextInjector(),
            message_reader=PipesTempFileMessageReader(),
            extras=dict(extras or {}),
        ) as session:
            command = self.command(module, arguments, num_processes)
            context.log.info("launch: %s", " ".join(command))
            code = self._wait(
                command,
                env={
                    **os.environ,
                    **launch_environment(num_processes),
                    **(env or {}),
                    **session.get_bootstrap_env_vars(),
                },
            )
        messages = session.get_custom_messages()
        if code != 0:
            raise _failure(module, code, messages)
        return PipesClientCompletedInvocation(session)

    def command(self, module: str, arguments: Sequence[str], num_processes: int) -> list[str]:
        """The command line, without the supervisor."""
        accelerate = self.accelerate or [sys.executable, "-m", "accelerate.commands.accelerate_cli"]
        # `--cpu --num_processes 2` silently runs ONE process; --multi_gpu with ACCELERATE_USE_CPU
        # runs two gloo ranks (accelerate 1.15).
        several = ["--multi_gpu"] if num_processes > 1 else []
        threads = max(1, (os.cpu_count() or 1) // num_processes)
        return [
            *accelerate,
            "launch",
            "--quiet",  # the trainer has said what was wrong; accelerate would add its own stack
            *several,
            *["--num_processes", str(num_processes), "--num_machines", "1"],
            *["--mixed_precision", "no", "--dynamo_backend", "no"],
            *["--num_cpu_threads_per_process", str(threads)],
            *["-m", module],
            *arguments,
        ]

    def _wait(self, command: Sequence[str], env: Mapping[str, str]) -> int:
        supervisor = [sys.executable, "-m", "ws_pipeline.defs.supervisor"]
        process = subprocess.Popen(  # noqa: S603
            [*supervisor, "--grace", str(self.grace_seconds), "--", *command],
            env=dict(env),
            stdin=subprocess.PIPE,  # closed by the kernel when this process dies
            start_new_session=True,  # Ctrl-C in a terminal reaches this process only
        )
        try:
            return process.wait()
        except (DagsterExecutionInterruptedError, KeyboardInterrupt):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=self.grace_seconds + 10)
            raise
        finally:
            if process.stdin:
                process.stdin.close()
            if process.poll() is None:
                process.wait(timeout=self.grace_seconds + 10)


def launch_environment(num_processes: int) -> dict[str, str]:
    """What a launched process needs beside the caller's environment, which wins."""
    # accelerate starts several ranks on a CPU only if it is told that a CPU is meant.
    has_gpu = Path("/dev/nvidiactl").exists()
    return {"ACCELERATE_USE_CPU": "true"} if num_processes > 1 and not has_gpu else {}


def _failure(module: str, code: int, messages: Sequence[Any]) -> dg.Failure:
    """Say what the process said: accelerate turns every code into 1."""
    said = [m for m in messages if isinstance(m, dict) and m.get("event") == "error"]
    last = said[-1] if said else {}
    text = last.get("message") or (
        "it reported nothing, so that it was killed, perhaps for want of memory, or its log has "
        "the traceback; the same command goes on where it stopped"
    )
    return dg.Failure(
        description=f"{module} ended with exit code {code}: {text}",
        metadata={"exit_code": code, "reason": str(last.get("reason", "internal"))},
        allow_retries=not last.get("permanent", False),
    )
