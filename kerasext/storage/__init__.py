"""How a prediction is kept: one HDF5 file. Knows NumPy and h5py, never Keras."""

from kerasext.storage.columns.class_names import ClassNames
from kerasext.storage.columns.dense_spec import (
    DEFAULT_STRING_BYTES as DEFAULT_STRING_BYTES,
    DenseSpec as DenseSpec,
)
from kerasext.storage.columns.dimension_scales import COORDINATES as COORDINATES
from kerasext.storage.columns.ids import to_ids as to_ids
from kerasext.storage.columns.output_names import (
    check_name_list as check_name_list,
    find_outputs as find_outputs,
)
from kerasext.storage.columns.ragged_rows import RaggedRows, join_ragged as join_ragged
from kerasext.storage.columns.ragged_spec import RaggedSpec as RaggedSpec
from kerasext.storage.columns.step_specs import (
    Ragged as Ragged,
    Spec as Spec,
    can_hold as can_hold,
    check_ragged as check_ragged,
)
from kerasext.storage.columns.text import TEXT_KINDS as TEXT_KINDS, encode_text as encode_text
from kerasext.storage.exports.exported_outputs import ExportedOutputs as ExportedOutputs
from kerasext.storage.format.commit_record import CallState as CallState
from kerasext.storage.format.damage import DamagedFileError
from kerasext.storage.format.layout import (
    GROUP as GROUP,
    IDS as IDS,
    PLAIN_OUTPUTS as PLAIN_OUTPUTS,
    RESERVED as RESERVED,
    ROW as ROW,
    TARGETS as TARGETS,
    check_not_reserved as check_not_reserved,
    head_and_output as head_and_output,
    output_path as output_path,
)
from kerasext.storage.index.index_file import (
    write_index as write_index,
    write_virtual_file as write_virtual_file,
)
from kerasext.storage.index.index_source import (
    IndexSource as IndexSource,
    is_index as is_index,
    is_virtual_file as is_virtual_file,
    open_source as open_source,
)
from kerasext.storage.index.row_order import RowOrder as RowOrder
from kerasext.storage.index.sharded_columns import ShardedRows as ShardedRows
from kerasext.storage.index.shards import (
    ShardFacts as ShardFacts,
    Shards as Shards,
    check_shard_name as check_shard_name,
    facts_of as facts_of,
    first_problems as first_problems,
    open_shard as open_shard,
)
from kerasext.storage.prediction_file import PredictionFile, opened as opened
from kerasext.storage.reading.dense_output import DenseOutput
from kerasext.storage.reading.file_source import FileSource as FileSource
from kerasext.storage.reading.head import Head, setting_of as setting_of
from kerasext.storage.reading.labels_at import relabelled as relabelled
from kerasext.storage.reading.ragged_output import RaggedOutput
from kerasext.storage.reading.row_blocks import read_rows as read_rows, row_blocks as row_blocks
from kerasext.storage.writing.background_writer import BackgroundWriter
from kerasext.storage.writing.compression import (
    Compression as Compression,
    check_compression as check_compression,
)
from kerasext.storage.writing.file_lock import LOCK_SUFFIX as LOCK_SUFFIX
from kerasext.storage.writing.file_maker import Mode as Mode
from kerasext.storage.writing.file_writer import PredictionFileWriter
from kerasext.storage.writing.resume import FINGERPRINT as FINGERPRINT
from kerasext.storage.writing.skipped_ids import SkippedIds as SkippedIds

__all__ = [
    "BackgroundWriter",
    "ClassNames",
    "DamagedFileError",
    "DenseOutput",
    "Head",
    "PredictionFile",
    "PredictionFileWriter",
    "RaggedOutput",
    "RaggedRows",
]
