"""Prediction files of several processes as one: by an index over them, or copied into one file."""

from kerasext.shards.index_shards import (
    check_index_name as check_index_name,
    index_shards,
    verify_index,
)
from kerasext.shards.merge_shards import merge_shards
from kerasext.shards.shard_folder import ShardFolder as ShardFolder

__all__ = ["index_shards", "merge_shards", "verify_index"]
