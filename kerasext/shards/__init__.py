"""Prediction files of several processes as one: by an index over them, or copied into one file."""

from kerasext.shards.merged_file import merge_shards
from kerasext.shards.shard_folder import ShardFolder as ShardFolder
from kerasext.shards.shard_index import (
    check_index_name as check_index_name,
    index_shards,
    verify_index,
)

__all__ = ["index_shards", "merge_shards", "verify_index"]
