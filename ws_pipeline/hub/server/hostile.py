"""Names and headers that a hub's users can choose and that would do harm to a careless reader.

What it is: what the simulated hub's hostile repos are made of. What it is not: the corpus of the
abuse tests, which also covers what only a hub itself could send. No I/O.
"""

from typing import Literal

Hostile = Literal["repo_id", "file_name", "index", "tensor_name", "header"]
HOSTILE_KINDS: tuple[Hostile, ...] = ("repo_id", "file_name", "index", "tensor_name", "header")
"""In what a repo is hostile: its own name, a file's, where a sharded model's index leads, the name
of a tensor, or the length that a safetensors file states for its header."""

HOSTILE_REPO_IDS = (
    *("../../etc/passwd", "org/../../etc", "org/a/b", "/etc/passwd", "org/", "org/..", "org\\m"),
    *(
        "org/nul\0",
        "org/new\nline",
        "org/\x1b[2Jm",
        "org/\u202egpj.m",
        "org/\u200b",
        "org/é",
        "org/ m",
    ),
    *("org/m?x=1", "org/m#x", "org/%2e%2e", "org/" + "m" * 5000, "o" * 5000 + "/m", "org/\ud800"),
)
HOSTILE_FILE_NAMES = (
    *("../../../.ssh/authorized_keys", "a/../../b", "..", ".", "", "/etc/passwd", "a//b", "./a"),
    *(
        "..\\..\\x",
        "C:\\x",
        "C:x",
        "\\\\host\\share",
        "a/",
        "nul\0",
        "new\nline.safetensors",
        "a\rb",
    ),
    *(
        "\x1b[2J",
        "\u202esrotcnetefas.ledom",
        "\u200b",
        "\ufeffmodel.safetensors",
        "\ud800",
        "n" * 5000,
    ),
)
HOSTILE_TENSOR_NAMES = (
    *("", "../../x", "..\\x", "a\0b", "a\nb", "\x1b[2Jw", "a\u202eb", "\u200b", "n" * 600),
)
