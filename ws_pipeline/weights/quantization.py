"""Which tensors belong to a quantised weight, and by whose format. Pure, no I/O.

A quantised weight lies in a file as several tensors: packed words and what turns them back into
numbers. Formats are recognised from names, dtypes and shapes, as their writers lay them out; the
config is not asked, since it says what was meant, not what is there. 8-bit floats with scales are
recognised too, but they are weights as they are. Not here: what is then done
(docs/decisions/0008-quantised-weights.md), and GGUF, which is no safetensors file (``header``).

Sources: GPTQ and AWQ, https://github.com/huggingface/transformers (integrations/awq.py, gptq);
bitsandbytes, functional.py ``QuantState.as_dict``; compressed-tensors, compressors/; MXFP4,
gpt-oss; MLX, nn/layers/quantized.py.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ws_pipeline.weights.dtypes import INTEGER_DTYPES
from ws_pipeline.weights.header import TensorInfo

Tensors = Mapping[str, TensorInfo]

FLOATS_OF_8_BITS = frozenset({"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})
PACKED_WORDS = frozenset({"U8", "I8", "I32", "U32"})


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedWeight:
    """One quantised weight.

    Attributes:
        method: The format: ``gptq``, ``awq``, ``bitsandbytes_4bit``, ...
        name: The tensor that holds its numbers.
        parts: All its tensors, ``name`` among them.
        is_packed: Whether the numbers are words to be unpacked; False for 8-bit floats, whose
            values are the weights up to their scales.
    """

    method: str
    name: str
    parts: tuple[str, ...]
    is_packed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """How one format writes a weight.

    Attributes:
        marker: End of the name of the tensor that gives the format away.
        main: End of the name of the tensor with the numbers, in the marker's place.
        dtypes: What the numbers may be; empty means any.
        parts: Ends of all further names that may occur, in the marker's place.
        needs: Ends of names that must occur.
        is_packed: See :class:`QuantizedWeight`.
        check: A further condition on (numbers, all tensors, prefix).
    """

    method: str
    marker: str
    main: str
    parts: tuple[str, ...]
    dtypes: frozenset[str] = frozenset()
    needs: tuple[str, ...] = ()
    is_packed: bool = True
    check: Callable[[TensorInfo, Tensors, str], bool] | None = None


def _packs_outputs(words: TensorInfo, tensors: Tensors, prefix: str) -> bool:
    """Say whether eight outputs share a word, as in AWQ; in GPTQ eight inputs do."""
    scales = tensors.get(f"{prefix}.scales")
    if scales is None or len(words.shape) != 2 or len(scales.shape) != 2:
        return False
    return words.shape[1] < scales.shape[1]


_COMPRESSED = (".weight_scale", ".weight_zero_point", ".weight_shape", ".weight_g_idx",
               ".weight_global_scale", ".input_global_scale")  # fmt: skip
_BITSANDBYTES = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map",
                 ".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")  # fmt: skip
_QWEIGHT = (".qzeros", ".scales", ".g_idx")

FORMATS: tuple[Format, ...] = (
    Format(method="awq", marker=".qweight", main=".qweight", parts=_QWEIGHT, check=_packs_outputs),
    Format(method="gptq", marker=".qweight", main=".qweight", parts=_QWEIGHT),
    Format(method="bitsandbytes_4bit", marker=".quant_state.bitsandbytes__nf4", main="",
           parts=_BITSANDBYTES),
    Format(method="bitsandbytes_4bit", marker=".quant_state.bitsandbytes__fp4", main="",
           parts=_BITSANDBYTES),
    Format(method="bitsandbytes_8bit", marker=".SCB", main=".weight", parts=(".weight_format",),
           dtypes=frozenset({"I8"})),
    Format(method="compressed_tensors", marker=".weight_packed", main=".weight_packed",
           parts=_COMPRESSED),
    Format(method="mxfp4", marker="_blocks", main="_blocks", parts=("_scales",),
           needs=("_scales",), dtypes=frozenset({"U8"})),
    Format(method="nvfp4", marker=".weight_scale_2", main=".weight",
           parts=(".weight_scale", ".input_scale"), dtypes=frozenset({"U8"})),
    Format(method="mlx", marker=".scales", main=".weight", parts=(".biases",),
           dtypes=frozenset({"U32"})),
    Format(method="hqq", marker=".W_q", main=".W_q", parts=(".scale", ".zero", ".meta")),
    Format(method="quanto", marker="._data", main="._data", parts=("._scale", "._shift"),
           dtypes=PACKED_WORDS),
    Format(method="int8", marker=".weight_scale", main=".weight",
           parts=(".weight_zero_point", ".input_scale"), dtypes=frozenset({"I8"})),
    Format(method="fp8", marker=".weight_scale_inv", main=".weight", parts=(".input_scale",),
           dtypes=FLOATS_OF_8_BITS, is_packed=False),
    Format(method="fp8", marker=".weight_scale", main=".weight", parts=(".input_scale",),
           dtypes=FLOATS_OF_8_BITS, is_packed=False),
)  # fmt: skip
"""The first that fits a marker counts."""


def find_quantized(tensors: Iterable[TensorInfo]) -> list[QuantizedWeight]:
    """Return the quantised weights of a model, in the order of their markers; no tensor twice."""
    by_name = {tensor.name: tensor for tensor in tensors}
    found: list[QuantizedWeight] = []
    taken: set[str] = set()
    for name in by_name:
        weight = next(
            (weight for form in FORMATS if (weight := _read_format(form, name, by_name))), None
        )
        if weight is not None and taken.isdisjoint(weight.parts):
            taken.update(weight.parts)
            found.append(weight)
    return found


def packed_names(weights: Sequence[QuantizedWeight]) -> frozenset[str]:
    """Return the names of all tensors that mean nothing until they are unpacked."""
    return frozenset(part for weight in weights if weight.is_packed for part in weight.parts)


def _read_format(form: Format, marker: str, tensors: Tensors) -> QuantizedWeight | None:
    if not marker.endswith(form.marker):
        return None
    prefix = marker.removesuffix(form.marker)
    main = tensors.get(prefix + form.main)
    if main is None or any(prefix + end not in tensors for end in form.needs):
        return None
    if form.dtypes and main.dtype not in form.dtypes:
        return None
    if form.is_packed and not form.dtypes and main.dtype not in INTEGER_DTYPES:
        return None
    if form.check is not None and not form.check(main, tensors, prefix):
        return None
    names = (main.name, marker, *(prefix + end for end in form.parts))
    parts = tuple(dict.fromkeys(name for name in names if name in tensors))
    return QuantizedWeight(
        method=form.method, name=main.name, parts=parts, is_packed=form.is_packed
    )
