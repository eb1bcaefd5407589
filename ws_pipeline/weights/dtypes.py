"""The element types a safetensors file may hold, and what they are in numpy. No I/O.

Not here: which of them are tokenised (``plan``). Source: the ``Dtype`` enum of safetensors 0.8,
https://github.com/huggingface/safetensors/blob/main/safetensors/src/tensor.rs. numpy knows neither
bfloat16 nor the 8-bit floats; ml_dtypes supplies them.
"""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class ElementType:
    """One safetensors dtype.

    Attributes:
        bits: Size of one element; below 8 the elements are packed.
        is_weight: A real floating type whose values can be weights. The 4- and 6-bit floats are
            packed, complex numbers are pairs, and F8_E8M0 holds bare exponents: these are kept
            verbatim instead.
        numpy_dtype: What the bytes are in numpy; packed types are read as ``uint8``.
    """

    bits: int
    is_weight: bool
    numpy_dtype: npt.DTypeLike


ELEMENT_TYPES: dict[str, ElementType] = {
    name: ElementType(bits=bits, is_weight=is_weight, numpy_dtype=np.dtype(numpy_type))
    for name, bits, is_weight, numpy_type in (
        ("BOOL", 8, False, np.bool_),
        ("F4", 4, False, np.uint8),
        ("F6_E2M3", 6, False, np.uint8),
        ("F6_E3M2", 6, False, np.uint8),
        ("U8", 8, False, np.uint8),
        ("I8", 8, False, np.int8),
        ("F8_E5M2", 8, True, ml_dtypes.float8_e5m2),
        ("F8_E4M3", 8, True, ml_dtypes.float8_e4m3fn),
        ("F8_E8M0", 8, False, ml_dtypes.float8_e8m0fnu),
        ("F8_E4M3FNUZ", 8, True, ml_dtypes.float8_e4m3fnuz),
        ("F8_E5M2FNUZ", 8, True, ml_dtypes.float8_e5m2fnuz),
        ("I16", 16, False, np.int16),
        ("U16", 16, False, np.uint16),
        ("F16", 16, True, np.float16),
        ("BF16", 16, True, ml_dtypes.bfloat16),
        ("I32", 32, False, np.int32),
        ("U32", 32, False, np.uint32),
        ("F32", 32, True, np.float32),
        ("C64", 64, False, np.complex64),
        ("F64", 64, True, np.float64),
        ("I64", 64, False, np.int64),
        ("U64", 64, False, np.uint64),
    )
}

_COMPUTABLE = (np.dtype(np.float32), np.dtype(np.float64))

INTEGER_DTYPES = frozenset({"BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64"})


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """Return the numpy dtype that the bytes of a safetensors ``dtype`` are read as."""
    return np.dtype(ELEMENT_TYPES[dtype].numpy_dtype)


def is_weight_dtype(dtype: str) -> bool:
    """Say whether values of this dtype can be weights (real, floating, one element per word)."""
    return ELEMENT_TYPES[dtype].is_weight


def widen(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return ``values`` in a dtype that numpy computes in: float64 as it is, else float32.

    Every 8- and 16-bit float is exactly a float32, so nothing is lost. Returns the input itself
    where it is wide enough already.
    """
    if values.dtype in _COMPUTABLE:
        return values
    return values.astype(np.float32)
