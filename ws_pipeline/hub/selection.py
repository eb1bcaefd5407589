"""Which repos of a family go into the corpus, as a list of rules. Pure, no I/O.

What it is: small functions that look at one candidate and say yes, or no with a reason code; the
thresholds are the recipe's. The first rule that says no decides. What it is not: a check of bytes
(``triage``, ``download``), or the rules that need the weights, the lineage or all families
(``tokens.corpus_rules``).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from ws_pipeline.errors import ConfigError, Reason
from ws_pipeline.hub.repo import accept, accepted_rows, build_frame, refuse

SELECTION_PAYLOAD: dict[str, pl.DataType] = {
    "family": pl.String(),
    "num_params": pl.Int64(),
    "num_bytes": pl.Int64(),
    "signature": pl.String(),
}

FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")
"""What is tokenised exactly; narrower floats are quantised leaves of other models."""

QUANTIZED_TAGS = frozenset(
    {"gptq", "awq", "bitsandbytes", "4-bit", "8-bit", "gguf", "exl2", "mlx", "compressed-tensors"}
)
QUANTIZED_SUFFIXES = (
    ".qweight",
    ".qzeros",
    ".g_idx",
    ".absmax",
    ".quant_map",
    ".weight_scale",
    ".weight_scale_inv",
    ".weight_packed",
    ".SCB",
    ".scb",
)
"""Tensor names that the common quantisers leave beside or in place of a weight."""

MAX_INTEGER_SHARE = 0.5
"""Of the parameters; BatchNorm counters are one number in thousands, packed weights nearly all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionPolicy:
    """The thresholds of selection.

    Args:
        licences: Licence names to allow, lower case; () allows all, "" in it allows repos without.
        min_params: Parameters a model has to have.
        max_params: Parameters a model may have.
        dtypes: safetensors dtypes that floating-point tensors may have.
        allow_quantized: Take models whose weights are packed integers.
        allow_custom_code: Take models that need code from their repo to run; ours is never run.
    """

    licences: tuple[str, ...] = ()
    min_params: int = 100
    max_params: int = 3_000_000_000
    dtypes: tuple[str, ...] = FLOAT_DTYPES
    allow_quantized: bool = False
    allow_custom_code: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_params <= self.max_params:
            raise ConfigError(
                f"SelectionPolicy needs 0 <= min_params <= max_params; got {self.min_params} and "
                f"{self.max_params}."
            )
        if not self.dtypes or not set(self.dtypes) <= set(FLOAT_DTYPES):
            raise ConfigError(
                f"SelectionPolicy.dtypes must be among {', '.join(FLOAT_DTYPES)}; "
                f"got {', '.join(self.dtypes) or 'none'}."
            )


class Verdict(NamedTuple):
    """A rule's answer; ``reason`` is None exactly when it accepts."""

    accept: bool
    reason: Reason | None = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One repo revision as rules see it: its ``hub/repos`` and ``hub/headers`` rows."""

    repo: dict[str, Any]
    header: dict[str, Any]
    config: dict[str, Any]


Rule = Callable[[Candidate, SelectionPolicy], Verdict]

ACCEPT = Verdict(True)


def check_licence(candidate: Candidate, policy: SelectionPolicy) -> Verdict:
    """Accept when all of the repo's licences are allowed."""
    licences = candidate.repo["licence"].split(",")
    if not policy.licences or set(licences) <= set(policy.licences):
        return ACCEPT
    stated = candidate.repo["licence"] or "no licence"
    return Verdict(False, Reason.LICENCE_NOT_ALLOWED, f"{stated} is not among the allowed ones.")


def check_custom_code(candidate: Candidate, policy: SelectionPolicy) -> Verdict:
    """Accept when the model runs with its library alone."""
    custom = "auto_map" in candidate.config or "custom_code" in candidate.repo["tags"]
    if policy.allow_custom_code or not custom:
        return ACCEPT
    return Verdict(False, Reason.CUSTOM_CODE, "The model needs code from its repo to run.")


def check_adapter(candidate: Candidate, policy: SelectionPolicy) -> Verdict:  # noqa: ARG001 - a Rule
    """Accept what is a model of its own, not a change to one."""
    if candidate.repo["base_model_relation"] == "adapter" or candidate.repo["library"] == "peft":
        return Verdict(False, Reason.ADAPTER, "The repo says that it is an adapter.")
    return ACCEPT


def check_quantized(candidate: Candidate, policy: SelectionPolicy) -> Verdict:
    """Accept when weights are plain numbers, by config, tags, tensor names and dtypes."""
    if policy.allow_quantized:
        return ACCEPT
    quantization = candidate.config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else "unknown"
        return Verdict(False, Reason.QUANTIZED, f"config.json says quantised by {method!s:.40}.")
    tags = QUANTIZED_TAGS & {tag.lower() for tag in candidate.repo["tags"]}
    if tags:
        return Verdict(False, Reason.QUANTIZED, f"The repo is tagged {min(tags)}.")
    tensors = candidate.header["tensors"]
    marked = next((t["name"] for t in tensors if t["name"].endswith(QUANTIZED_SUFFIXES)), None)
    if marked is not None:
        return Verdict(False, Reason.QUANTIZED, f"{marked[:80]} is what a quantiser writes.")
    num_integers = sum(t["num_params"] for t in tensors if _is_integer(t["dtype"]))
    if num_integers > MAX_INTEGER_SHARE * candidate.header["num_params"]:
        return Verdict(False, Reason.QUANTIZED, "More than half of the parameters are integers.")
    return ACCEPT


def check_dtype(candidate: Candidate, policy: SelectionPolicy) -> Verdict:
    """Accept when every floating-point tensor has an allowed dtype, and there is one."""
    floats = {d for d in candidate.header["dtypes"] if not _is_integer(d)}
    refused = sorted(floats - set(policy.dtypes))
    if refused or not floats:
        what = ", ".join(refused) or "no floating-point tensor"
        return Verdict(False, Reason.UNSUPPORTED_DTYPE, f"The model holds {what}.")
    return ACCEPT


def check_size(candidate: Candidate, policy: SelectionPolicy) -> Verdict:
    """Accept within the size window."""
    num_params = candidate.header["num_params"]
    if num_params < policy.min_params:
        detail = f"It has {num_params} parameters, at least {policy.min_params} are asked for."
        return Verdict(False, Reason.TOO_SMALL, detail)
    if num_params > policy.max_params:
        detail = f"It has {num_params} parameters, at most {policy.max_params} are asked for."
        return Verdict(False, Reason.TOO_LARGE, detail)
    return ACCEPT


RULES: tuple[Rule, ...] = (
    check_licence,
    check_custom_code,
    check_adapter,
    check_quantized,
    check_dtype,
    check_size,
)
"""In order: what the repo says of itself, then what its tensors are."""


def judge(
    candidate: Candidate, policy: SelectionPolicy, rules: tuple[Rule, ...] = RULES
) -> Verdict:
    """Return the verdict of the first rule that refuses, or ACCEPT."""
    for rule in rules:
        verdict = rule(candidate, policy)
        if not verdict.accept:
            return verdict
    return ACCEPT


def select_family(
    repos: pl.DataFrame, headers: pl.DataFrame, policy: SelectionPolicy
) -> pl.DataFrame:
    """Judge every repo revision whose header was accepted.

    Of repos with byte-identical weight files only the earliest created is kept.

    Returns:
        The ``hub/selection`` table: KEY_SCHEMA and SELECTION_PAYLOAD.
    """
    by_revision = {(row["hub_id"], row["revision"]): row for row in accepted_rows(repos)}
    rows, kept = [], []
    for header in accepted_rows(headers):
        repo = by_revision.get((header["hub_id"], header["revision"]))
        if repo is None:  # the repo moved on since its header was read
            continue
        payload = {name: header[name] for name in ("num_params", "num_bytes", "signature")}
        payload["family"] = repo["family"]
        candidate = Candidate(repo=repo, header=header, config=_load_config(repo["config"]))
        verdict = judge(candidate, policy)
        if verdict.reason is None:
            kept.append((candidate, payload))
        else:
            rows.append(
                refuse(repo, verdict.reason, verdict.detail, reused=header["reused"], **payload)
            )
    return build_frame(rows + _refuse_duplicates(kept), SELECTION_PAYLOAD)


def _refuse_duplicates(
    kept: list[tuple[Candidate, dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Return stage rows in which only the earliest of identical repos is accepted."""
    first: dict[tuple[str, ...], str] = {}
    rows = []
    for candidate, payload in sorted(kept, key=lambda item: _age(item[0].repo)):
        repo, reused = candidate.repo, candidate.header["reused"]
        digests = _weight_digests(candidate)
        earlier = first.setdefault(digests, repo["repo_id"]) if digests else repo["repo_id"]
        if earlier == repo["repo_id"]:
            rows.append(accept(repo, reused=reused, **payload))
        else:
            detail = f"Its weight files are byte for byte those of {earlier}."
            rows.append(refuse(repo, Reason.DUPLICATE_FILES, detail, reused=reused, **payload))
    return rows


def _age(repo: dict[str, Any]) -> tuple[bool, Any, str]:
    """Order by creation; a repo without a date comes last, equals by hub_id."""
    created_at = repo["created_at"]
    return created_at is None, created_at, repo["hub_id"]


def _weight_digests(candidate: Candidate) -> tuple[str, ...]:
    """Return the sorted sha256 of the model's files; () when the hub does not state them all."""
    stated = {file["path"]: file["sha256"] for file in candidate.repo["files"]}
    digests = tuple(sorted(stated.get(file["path"], "") for file in candidate.header["files"]))
    return digests if all(digests) else ()


def _is_integer(dtype: str) -> bool:
    return dtype == "BOOL" or dtype.startswith(("I", "U"))


def _load_config(text: str) -> dict[str, Any]:
    config = json.loads(text)
    return config if isinstance(config, dict) else {}
