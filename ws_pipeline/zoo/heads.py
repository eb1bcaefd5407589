"""Which tensors are output layers, those that a fine-tune may start afresh. No torch, no I/O."""

from collections.abc import Mapping, Sequence

from ws_pipeline.errors import ConfigError

HEAD_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "mlp": ("layers.-1.",),
    "cnn": ("fc2.",),
    "resnet18": ("fc.",),
    "vit": ("vit.pooler.", "classifier."),
    "bert": ("classifier.",),
    "gpt2": (),  # tied to the embedding
}
"""Prefixes of the names of every architecture's output layers; the last gives the logits."""


def head_names(architecture: str, names: Sequence[str]) -> list[str]:
    """List the tensors of the output layers among ``names``.

    Raises:
        ConfigError: When the architecture has no output layer of its own.
    """
    prefixes = HEAD_PREFIXES[architecture]
    if not prefixes:
        raise ConfigError(f"{architecture!r} has no output layer of its own to start afresh.")
    if "-1" in prefixes[-1]:  # the last of a numbered list
        stem = prefixes[-1].partition("-1")[0]
        last = max(int(name.removeprefix(stem).partition(".")[0]) for name in names)
        prefixes = (f"{stem}{last}.",)
    return [name for name in names if name.startswith(prefixes)]
