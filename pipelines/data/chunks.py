"""The chunk plan: how samples are grouped in a store's chunks and shards, and in memory.

Whole samples lie in a chunk, because training reads whole samples in any order; 32 were measured to stream
best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

CHUNK_SAMPLES = 32
# A chunk never grows beyond what a reader can hold a few of; many small chunks share a shard file of about this size.
CHUNK_BYTES = 128 * 2**20
SHARD_BYTES = 32 * 2**20
# One slab of samples is in memory at a time (and as much again while it is decoded and converted).
SLAB_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class ChunkPlan:
    """How many samples lie in a chunk, in a shard (a whole number of chunks, or None), and are written at a time."""

    chunk: int
    shard: int | None
    slab: int


def plan_chunks(num_samples: int, sample_bytes: int, *, read_samples: int = 1) -> ChunkPlan:
    """Plan the chunks of a store: 32 whole samples, fewer where they are very large, sharded where they are many.

    Args:
        num_samples: T.
        sample_bytes: bytes of one sample.
        read_samples: samples in one block of the source; a slab holds whole blocks where memory allows.

    >>> plan_chunks(744, 33 * 49 * 4)
    ChunkPlan(chunk=32, shard=None, slab=10368)
    """
    chunk = max(1, min(CHUNK_SAMPLES, num_samples, CHUNK_BYTES // sample_bytes))
    together = SHARD_BYTES // (chunk * sample_bytes)
    num_chunks = math.ceil(num_samples / chunk)
    shard = chunk * min(together, num_chunks) if together >= 2 and num_chunks > 64 else None
    unit = shard or chunk
    slab = _slab(unit, sample_bytes)
    wanted = math.ceil(read_samples / unit) * unit
    return ChunkPlan(chunk=chunk, shard=shard, slab=slab if slab < wanted else slab // wanted * wanted)


def block_samples(chunk: int, sample_bytes: int) -> int:
    """How many samples to read at a time: a chunk, or as many small ones as make 32 samples.

    >>> block_samples(1, 33 * 49 * 4), block_samples(32, 33 * 49 * 4), block_samples(1, 100 * 2**20)
    (32, 32, 1)
    """
    together = min(CHUNK_SAMPLES, CHUNK_BYTES // max(1, sample_bytes)) // chunk
    return chunk * max(1, together)


def candidate_plans(num_samples: int, sample_bytes: int) -> list[ChunkPlan]:
    """Plans that are worth measuring: chunks of several sizes, as files of their own and in shards.

    >>> [(plan.chunk, plan.shard) for plan in candidate_plans(744, 181 * 360 * 4)]
    [(1, None), (8, None), (32, None), (128, None), (8, 128), (32, 128)]
    """
    sizes = [chunk for chunk in (1, 8, 32, 128) if chunk <= num_samples and chunk * sample_bytes <= CHUNK_BYTES]
    plans = [ChunkPlan(chunk=chunk, shard=None, slab=_slab(chunk, sample_bytes)) for chunk in sizes or [1]]
    for chunk in (8, 32):
        together = min(SHARD_BYTES // sample_bytes, num_samples) // chunk
        if chunk in sizes and together >= 2:
            shard = chunk * together
            plans.append(ChunkPlan(chunk=chunk, shard=shard, slab=_slab(shard, sample_bytes)))
    return plans


def _slab(unit: int, sample_bytes: int) -> int:
    return max(unit, SLAB_BYTES // sample_bytes // unit * unit)
