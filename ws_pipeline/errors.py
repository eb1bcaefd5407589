"""The exception tree and the reason codes. No I/O.

Every error says what had to hold, what came, and what to do next. Every exclusion of a repo or
tensor names a :class:`Reason`; the same codes stand in the ledger, in asset metadata and on stderr.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why something was refused or left out. Stable strings: people filter on them."""

    # What the hub says of a repo.
    GATED = "gated"
    PRIVATE = "private"
    DISABLED = "disabled"
    NOT_FOUND = "not_found"
    MALFORMED_ROW = "malformed_row"
    UNREACHABLE = "unreachable"
    # What a repo holds.
    NO_WEIGHTS = "no_weights"
    PICKLE_ONLY = "pickle_only"
    UNSAFE_FILE_NAME = "unsafe_file_name"
    TOO_MANY_FILES = "too_many_files"
    INVALID_INDEX = "invalid_index"
    # What a safetensors header says.
    NOT_SAFETENSORS = "not_safetensors"
    HEADER_TRUNCATED = "header_truncated"
    HEADER_TOO_LARGE = "header_too_large"
    HEADER_NOT_JSON = "header_not_json"
    HEADER_INVALID = "header_invalid"
    HEADER_DUPLICATE_NAME = "header_duplicate_name"
    HEADER_BAD_NAME = "header_bad_name"
    HEADER_BAD_SHAPE = "header_bad_shape"
    HEADER_BAD_DTYPE = "header_bad_dtype"
    HEADER_BAD_OFFSETS = "header_bad_offsets"
    HEADER_TOO_MANY_TENSORS = "header_too_many_tensors"
    HEADER_TOO_COSTLY = "header_too_costly"
    HEADER_NOT_PARSED = "header_not_parsed"
    # Selection rules.
    LICENCE_NOT_ALLOWED = "licence_not_allowed"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    UNSUPPORTED_DTYPE = "unsupported_dtype"
    QUANTIZED = "quantized"
    ADAPTER = "adapter"
    CUSTOM_CODE = "custom_code"
    DUPLICATE_FILES = "duplicate_files"
    # Corpus rules.
    CONSTANT_WEIGHTS = "constant_weights"
    DUPLICATE_TENSORS = "duplicate_tensors"
    NEAR_DUPLICATE = "near_duplicate"
    LINEAGE_FULL = "lineage_full"
    # Download and bytes.
    DOWNLOAD_FAILED = "download_failed"
    SHA256_MISMATCH = "sha256_mismatch"
    FILE_TOO_LARGE = "file_too_large"
    NO_SPACE = "no_space"
    # Weights.
    NON_FINITE_WEIGHTS = "non_finite_weights"
    WEIGHTS_OUT_OF_RANGE = "weights_out_of_range"
    NOTHING_TO_TOKENIZE = "nothing_to_tokenize"
    # Treatment of a tensor that is not tokenised.
    BUFFER = "buffer"
    INTEGER_TENSOR = "integer_tensor"
    EMPTY_TENSOR = "empty_tensor"
    TIED = "tied"
    # What an evaluation could not use.
    CARD_INVALID = "card_invalid"
    METRIC_NOT_REPORTED = "metric_not_reported"
    METRIC_NOT_A_NUMBER = "metric_not_a_number"
    METRIC_OUT_OF_BOUNDS = "metric_out_of_bounds"
    NO_EMBEDDING = "no_embedding"
    NO_STATISTICS = "no_statistics"
    # Misuse.
    MISUSE = "misuse"
    NOT_AVAILABLE = "not_available"
    INVALID_CONFIG = "invalid_config"
    UNKNOWN_NAME = "unknown_name"
    MISSING_INPUT = "missing_input"
    PORT_IN_USE = "port_in_use"
    CONFLICT = "conflict"
    INTERNAL = "internal"


class WsPipelineError(Exception):
    """Base of everything this package raises on purpose.

    Args:
        message: One sentence: what had to hold, what came, what to do.
        reason: The code; defaults to the class's own.
    """

    reason: Reason = Reason.INTERNAL
    exit_code: int = 1

    def __init__(self, message: str, *, reason: Reason | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class RefusedError(WsPipelineError):
    """Input that does not keep within the stated bounds, or that is misused. Exit code 2."""

    exit_code = 2


class ConfigError(RefusedError):
    """A config field out of bounds, or a name that does not exist."""

    reason = Reason.INVALID_CONFIG


class MissingInputError(RefusedError):
    """A file, folder or artifact that has to be there and is not."""

    reason = Reason.MISSING_INPUT


class HeaderError(RefusedError):
    """A safetensors header that breaks the format or our caps."""

    reason = Reason.HEADER_INVALID


class WeightsError(RefusedError):
    """Weights that cannot be planned, normalised or packed."""


class HubError(WsPipelineError):
    """The hub did not answer, or answered something that breaks its own protocol."""

    reason = Reason.UNREACHABLE


class StorageError(WsPipelineError):
    """The store could not do what was asked."""


class IntegrityError(StorageError):
    """Bytes that are not what their digest says."""

    reason = Reason.SHA256_MISMATCH


class BusyError(StorageError):
    """Somebody else works on the same thing, and was waited for in vain."""

    reason = Reason.DOWNLOAD_FAILED


class ManifestConflictError(StorageError):
    """A create-only object exists with other content."""

    reason = Reason.CONFLICT


class NoSpaceError(StorageError):
    """The disk is full, or fuller than the reserve allows."""

    reason = Reason.NO_SPACE


class TrainingError(WsPipelineError):
    """A training run ended without a model."""
