"""Memory pools for completion-based I/O.

A pool hands out blocks as leases; a lease has a writable ``view`` and goes back by
``release()`` or at the end of its with-block::

    from pools import SlabPool

    pool = SlabPool(block_size=4096, block_count=1024, name="recv")
    with pool.acquire(tag="hello") as lease:
        lease.view[:5] = b"hello"
"""

from pools._native import version as __version__
from pools.buddy import BuddyPool
from pools.buddy_map import BuddyLevels, BuddyMap
from pools.compacting import CompactingPool
from pools.compaction import AutoCompact, Compaction, Forecast, PinnedBlock
from pools.debugging import Debug, block_history
from pools.embedding import get_cmake_dir, get_include, get_library_dir, get_pkgconfig_dir
from pools.errors import (
    BlockCorrupted,
    BlockPinned,
    DoubleRelease,
    ForeignBlock,
    LeakError,
    OutOfMemory,
    PoolClosed,
    PoolCorrupt,
    PoolError,
    PoolExhausted,
    PoolTimeout,
    PoolValueError,
    QuotaExceeded,
    StaleHandle,
    Unsupported,
    WrongThread,
)
from pools.faults import Fault, Operation
from pools.leaks import Leak, LeakReport
from pools.lease import Batch, Lease
from pools.malloc import MallocPool
from pools.memory import MemoryInfo
from pools.memory_pool import MemoryPool
from pools.pinning import CompactingLease
from pools.pool import Pool
from pools.quotas import Crossing, Quota, QuotaLevels, quota_levels, set_quota
from pools.sizeclass import SizeClassPool
from pools.slab import SlabPool
from pools.stats import STATISTICS, BlockInfo, PoolStats, Statistic
from pools.trace import Trace
from pools.walk import Walk

__all__ = [
    "STATISTICS",
    "AutoCompact",
    "Batch",
    "BlockCorrupted",
    "BlockInfo",
    "BlockPinned",
    "BuddyLevels",
    "BuddyMap",
    "BuddyPool",
    "CompactingLease",
    "CompactingPool",
    "Compaction",
    "Crossing",
    "Debug",
    "DoubleRelease",
    "Fault",
    "Forecast",
    "ForeignBlock",
    "Leak",
    "LeakError",
    "LeakReport",
    "Lease",
    "MallocPool",
    "MemoryInfo",
    "MemoryPool",
    "Operation",
    "OutOfMemory",
    "PinnedBlock",
    "Pool",
    "PoolClosed",
    "PoolCorrupt",
    "PoolError",
    "PoolExhausted",
    "PoolStats",
    "PoolTimeout",
    "PoolValueError",
    "Quota",
    "QuotaExceeded",
    "QuotaLevels",
    "SizeClassPool",
    "SlabPool",
    "StaleHandle",
    "Statistic",
    "Trace",
    "Unsupported",
    "Walk",
    "WrongThread",
    "__version__",
    "block_history",
    "get_cmake_dir",
    "get_include",
    "get_library_dir",
    "get_pkgconfig_dir",
    "quota_levels",
    "set_quota",
]
