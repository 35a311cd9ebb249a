"""Random numbers that belong to an example: the same in whatever batch, process or order it is drawn."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def example_keys(seed: int, epoch: int, index: np.ndarray) -> np.ndarray:
    """One 64-bit key for each example of an epoch."""
    key = np.zeros(len(index), np.uint64)
    for part in (np.full(len(index), seed), np.full(len(index), epoch), index):
        key = _mix(key + _GOLDEN + part.astype(np.int64).astype(np.uint64))
    return key


def uniforms(keys: np.ndarray, stream: str, num: int) -> Float[Tensor, "b num"]:
    """Numbers in [0, 1) for each key; every `stream` has numbers of its own.

    Source:    SplitMix64, Steele, Lea and Flood 2014: the mixed value of a key and a counter.
    Checked:   tests/data/images/test_image_collate.py - flat, streams and keys do not correlate, no matter which batch.
    """
    offset = np.uint64(int.from_bytes(stream.encode()[:8].ljust(8), "little"))
    counter = _mix(offset + np.arange(1, num + 1, dtype=np.uint64) * _GOLDEN)
    bits = _mix(keys[:, None] ^ counter) >> np.uint64(40)  # 24 bits: what a float32 below 1 can hold
    return torch.from_numpy(bits.astype(np.float32) * np.float32(2**-24))


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
