"""Numbers that follow from other numbers, for populations of which nothing is stored. No I/O.

Source: https://prng.di.unimi.it/splitmix64.c.
"""

_MASK = 2**64 - 1


def mix(*parts: int) -> int:
    """Return 64 well-mixed bits of a few numbers."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def draw_share(*parts: int) -> float:
    """Return a number in [0, 1)."""
    return mix(*parts) / 2**64


def draw_hex(seed: int, *parts: int, digits: int) -> str:
    """Return hexadecimal digits."""
    words = range(-(-digits // 16))
    return "".join(f"{mix(seed, word, *parts):016x}" for word in words)[:digits]
