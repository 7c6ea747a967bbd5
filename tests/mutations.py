"""Checks that the tests notice when something important breaks.

A test suite that is rewritten to be faster can lose a check, and still pass. This script changes
the source on purpose and runs the tests, which must fail. Each mutation below is one realistic
mistake; most of them lose rows or store wrong ones without an error. For each mutation the script
copies the checkout, changes one place in the copy, and runs the few test files that should notice:

    python tests/mutations.py                            # all mutations, about ten minutes
    python tests/mutations.py lock-shared csv-columns    # these two
    python tests/mutations.py --list                     # what each mutation breaks

Before that, it runs the same tests on a copy without a mutation, where they must pass;
`--no-baseline` skips this. The table has a line for each mutation:

    noticed       A test failed, which the line names, or the tests took more than five minutes.
    NOT NOTICED   All tests passed. A test is missing.
    MOVED         The source does not have the old text exactly once. Change the mutation.
    ERROR         pytest could not run the tests; its output follows.
    skipped       The backend, or a package that the tests need, is not installed.

The exit code is 0 if all mutations are noticed or skipped, else 1.

To add a mutation, append an entry to `MUTATIONS` and run it by its name. The old text should be
short, and must occur once in the file. Name one to three test files or folders.

CI does not run this script, because it checks the tests and takes minutes. Run it after tests were
rewritten, moved or removed. It copies the files that Git tracks as they are in the checkout, with
changes that are not committed. pytest does not collect this file.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 300  # seconds, of the tests of one mutation
BASELINE_TIMEOUT = 3600
# These replace the options of pyproject.toml, which may deselect tests or run them in parallel.
ADDOPTS = "--import-mode=importlib --strict-markers"


@dataclass(frozen=True)
class Mutation:
    """One mistake in the source.

    Args:
        name: String. The name on the command line.
        breaks: String. What is broken, in one sentence.
        file: String. The file to change.
        old: String. The text to replace, which occurs once in the file.
        new: String. The text that replaces it.
        tests: Tuple of strings. The test files or folders that should notice.
        backend: String. The Keras backend to run the tests on.
        slow: Bool. Whether the tests include those marked as slow.
        needs: String. A package without which the tests are skipped.
    """

    name: str
    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    backend: str = "tensorflow"
    slow: bool = False
    needs: str = ""

    @property
    def places(self) -> int:
        """How often the source has the old text."""
        path = ROOT / self.file
        return path.read_text().count(self.old) if path.exists() else 0

    @property
    def missing(self) -> str:
        """The backend or package that is not installed, `""` if none is missing."""
        needed = [name for name in (self.backend, self.needs) if name]
        return next((name for name in needed if importlib.util.find_spec(name) is None), "")


MUTATIONS = [
    # Writing
    Mutation(
        "record-before-rows",
        "The commit record is written before the rows that it counts.",
        "kerasext/storage/writing/write_session.py",
        "        file.write_rows(self.state.rows, last",
        "        self._write_state(file, complete=complete)\n"
        "        file.write_rows(self.state.rows, last",
        (
            "tests/storage/writing/test_killed_writer.py",
            "tests/storage/writing/test_write_session.py",
        ),
    ),
    Mutation(
        "last-chunk-not-written",
        "The rows that do not fill a chunk are left out when the file is complete.",
        "kerasext/storage/writing/chunk_writer.py",
        "        if filled and first == ",
        "        if filled and not last and first == ",
        ("tests/storage/writing/test_file_writer.py",),
    ),
    Mutation(
        "begun-chunk-not-read",
        "After a resume the first rows of the chunk that was begun become zeros.",
        "kerasext/storage/writing/chunk_writer.py",
        "            self._block[:filled] = h5ds[rows - filled : rows]\n",
        "",
        ("tests/storage/writing/test_resume.py",),
    ),
    Mutation(
        "queue-unbounded",
        "The model never waits for the disk, so that the queue grows without a bound.",
        "kerasext/storage/writing/background_writer.py",
        "        if waiting > self._queue_bytes:",
        "        if waiting > self._queue_bytes and self.is_over:",
        ("tests/storage/writing/test_background_writer.py",),
    ),
    Mutation(
        "queue-dropped-at-the-end",
        "Steps that still wait when `predict` ends are not written.",
        "kerasext/storage/writing/background_writer.py",
        "            if self._steps:\n                self._wake.set()\n            elif end:",
        "            if self._steps and not end:\n                self._wake.set()\n"
        "            elif end:",
        ("tests/storage/writing/test_background_writer.py",),
    ),
    Mutation(
        "commit-without-what-waits",
        "A commit that is due leaves out the steps that wait.",
        "kerasext/storage/writing/background_writer.py",
        "            self._write_several()\n            while",
        "            while",
        ("tests/storage/writing/test_background_writer.py",),
    ),
    Mutation(
        "write-error-swallowed",
        "An error in the thread that writes is never raised.",
        "kerasext/storage/writing/background_writer.py",
        "            self._error = self._failure = error\n",
        "            self._error = self._failure = None\n",
        ("tests/storage/writing/test_background_writer.py",),
    ),
    Mutation(
        "lock-shared",
        "The lock of the file is taken in a way that lets a second writer have it too.",
        "kerasext/storage/writing/file_lock.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        ("tests/storage/writing/test_file_lock.py",),
    ),
    Mutation(
        "integer-wraps",
        "The label -1 is stored as 255 in uint8 instead of raising an error.",
        "kerasext/storage/columns/dense_spec.py",
        'if array.dtype.kind in "iu" and self.dtype.kind in "iu" and not',
        'if array.dtype.kind in "u" and self.dtype.kind in "iu" and not',
        ("tests/storage/columns/test_dense_spec.py",),
    ),
    Mutation(
        "float-overflows",
        "A number that float16 can't hold is stored as infinity instead of raising an error.",
        "kerasext/storage/columns/dense_spec.py",
        'np.errstate(over="raise")',
        'np.errstate(over="ignore")',
        ("tests/storage/columns/test_dense_spec.py",),
    ),
    Mutation(
        "fixed-point-rounds-down",
        "Fixed-point numbers are rounded down, one level below the nearest one.",
        "kerasext/storage/columns/fixed_point.py",
        "np.rint(steps, out=steps)",
        "np.floor(steps, out=steps)",
        ("tests/storage/columns/test_fixed_point.py",),
    ),
    Mutation(
        "ragged-splits",
        "The row splits of ragged rows are off by one row.",
        "kerasext/storage/writing/ragged_writer.py",
        "rows.row_splits[1:] + numbers",
        "rows.row_splits[:-1] + numbers",
        ("tests/storage/writing/test_ragged_writer.py",),
    ),
    Mutation(
        "locking-variable-ignored",
        "A lock that can't be taken raises an error although HDF5_USE_FILE_LOCKING is FALSE.",
        "kerasext/storage/writing/file_lock.py",
        "        if is_asked_for and error.errno not in _NO_LOCKS:",
        "        if error.errno not in _NO_LOCKS:",
        ("tests/storage/writing/test_file_lock.py",),
    ),
    Mutation(
        "finalizer-waits",
        "A finalizer waits for the thread, which may wait for the lock of h5py that it holds.",
        "kerasext/callbacks/prediction_run.py",
        "weakref.finalize(self, self._background.abandon)",
        "weakref.finalize(self, self._background.close)",
        ("tests/callbacks/test_ends_of_predict.py",),
    ),
    Mutation(
        "running-writer-closed",
        "A second writer closes the first one of the path in the middle of its `predict`.",
        "kerasext/callbacks/prediction_run.py",
        "            is_of_another or predict_loop.is_predicting_with(callback)\n",
        "            is_of_another\n",
        ("tests/callbacks/test_ends_of_predict.py",),
    ),
    Mutation(
        "torn-chunk-read",
        "A resumed run reads a chunk that the kill has torn, and fails for good.",
        "kerasext/storage/writing/chunk_writer.py",
        "        if not (last and is_safe):",
        "        if not last:",
        ("tests/storage/writing/test_chunk_writer.py",),
    ),
    Mutation(
        "torn-step-finished",
        "A step that Ctrl-C has cut in two is counted as written.",
        "kerasext/storage/writing/write_session.py",
        '            self.stage = "torn"',
        '            self.stage = "writing"',
        ("tests/storage/writing/test_write_session.py",),
    ),
    Mutation(
        "damage-rewritten",
        "Rows that are damaged get checksums that match when the file is rewritten for wider text.",
        "kerasext/storage/writing/file_maker.py",
        "            if source.state.closed and source.state",
        "            if not source.state.closed and source.state",
        ("tests/storage/writing/test_wider_text.py",),
    ),
    Mutation(
        "permissions-of-a-new-file",
        "A file that replaces another one gets the permissions of a new file.",
        "kerasext/common/atomic_file.py",
        "        target.chmod(mode)\n",
        "        target.touch()\n",
        ("tests/storage/test_other_files.py",),
    ),
    Mutation(
        "output-taken-for-a-column",
        "An output of the model called `ids` or `row` is read as the column of that name.",
        "kerasext/storage/format/layout.py",
        "    return frozenset((roots & COLUMNS) - set(others))",
        "    return frozenset((roots & COLUMNS) - set(others[:0]))",
        ("tests/callbacks/test_row_columns.py",),
    ),
    # Reading
    Mutation(
        "sums-not-compared",
        "`verify` does not compare chunks with their checksums.",
        "kerasext/storage/reading/verification.py",
        "yield number < len(stored) and found == stored[number]",
        "yield number < len(stored)",
        ("tests/storage/format/test_checksums.py",),
    ),
    Mutation(
        "last-sum-not-compared",
        "`verify` leaves out the last chunk of a complete file, which is partly filled.",
        "kerasext/storage/reading/verification.py",
        "math.ceil(count) if source.state.complete else math.floor(count)",
        "math.floor(count)",
        ("tests/storage/format/test_checksums.py",),
    ),
    Mutation(
        "uncommitted-rows-shown",
        "A reader shows rows that were never committed.",
        "kerasext/storage/reading/file_columns.py",
        "return FileColumn(source, *source.open_dataset(name, rows, found), rows)",
        "return FileColumn(source, *source.open_dataset(name, rows, found), len(found))",
        ("tests/storage/test_prediction_file.py",),
    ),
    Mutation(
        "rows-of-a-list-sorted",
        "Rows that are chosen by a list come sorted, not in the order of the list.",
        "kerasext/storage/reading/dense_output.py",
        "places.reshape(index.shape) if index.ndim",
        "np.sort(places).reshape(index.shape) if index.ndim",
        ("tests/storage/reading/test_dense_output.py",),
    ),
    Mutation(
        "name-of-no-label",
        "The label -1, of a row with NaN, has the name of the last class.",
        "kerasext/storage/columns/class_names.py",
        "names = self._names[index]",
        "names = self._names[:-1][index]",
        ("tests/storage/columns/test_class_names.py",),
    ),
    Mutation(
        "export-last-block",
        "An export leaves out a last row that is a block of its own.",
        "kerasext/storage/reading/row_blocks.py",
        "while start < rows:",
        "while start < rows - 1:",
        ("tests/storage/exports/test_exports.py",),
    ),
    Mutation(
        "csv-columns",
        "In CSV and pandas the columns of the classes have each other's names.",
        "kerasext/storage/exports/table_columns.py",
        "zip(ends, rows.T, strict=True)",
        "zip(ends, rows.T[::-1], strict=True)",
        ("tests/storage/exports/test_exports.py",),
    ),
    Mutation(
        "parquet-order",
        "In Parquet and Arrow the blocks of rows come in the reverse order.",
        "kerasext/storage/exports/arrow_table.py",
        "in self._exported.blocks(most_bytes):",
        "in reversed(list(self._exported.blocks(most_bytes))):",
        ("tests/storage/exports/test_exports.py",),
    ),
    # Many files as one
    Mutation(
        "missing-shard",
        "An index opens though a shard is missing or was replaced.",
        "kerasext/storage/index/shards.py",
        "                view_of(self.folder / name, facts).close()\n",
        "",
        ("tests/shards/test_index_shards.py",),
    ),
    Mutation(
        "bad-shard-left-out",
        "An index is made of the shards that are whole, without the damaged and unfinished ones.",
        "kerasext/shards/shard_folder.py",
        "        if problems:\n",
        "        if problems and not shards.names:\n",
        ("tests/shards/test_shard_folder.py",),
    ),
    Mutation(
        "expected-ids-missing",
        "Ids that are expected and in no shard are not reported.",
        "kerasext/shards/expected_ids.py",
        "np.setdiff1d(expected, found, assume_unique=True)",
        "np.setdiff1d(expected, expected, assume_unique=True)",
        ("tests/shards/test_expected_ids.py",),
    ),
    Mutation(
        "index-order",
        "Rows whose ids are near each other are taken for a run, so that an index has other rows.",
        "kerasext/shards/shard_folder.py",
        "(np.diff(order) != 1)",
        "(np.diff(order) < 1)",
        ("tests/shards/test_shard_folder.py", "tests/shards/test_index_shards.py"),
    ),
    Mutation(
        "shard-facts",
        "A shard that was written again, with as many rows and bytes, is read as the old one.",
        "kerasext/storage/index/shards.py",
        "if found != facts[:3] or not state.complete:",
        "if found[:2] != facts[:2] or not state.complete:",
        ("tests/storage/index/test_index_source.py",),
    ),
    Mutation(
        "sealed-table",
        "A table of an index is believed although it differs from its checksum.",
        "kerasext/storage/format/sealed_table.py",
        "if _checksum(table) != node.attrs[CHECKSUM]:",
        "if _checksum(table) < 0:",
        ("tests/storage/format/test_sealed_table.py", "tests/storage/index/test_index_source.py"),
    ),
    Mutation(
        "order-of-runs",
        "Rows of several runs of one shard are put into each other's places.",
        "kerasext/storage/index/row_order.py",
        "_ranges(some[runs], rows[runs])",
        "_ranges(np.sort(some[runs]), rows[runs])",
        ("tests/storage/index/test_row_order.py",),
    ),
    Mutation(
        "part-of-a-run",
        "A block that begins within a run has the first rows of that run.",
        "kerasext/storage/index/row_order.py",
        "            begin += before\n",
        "",
        ("tests/storage/index/test_row_order.py",),
    ),
    Mutation(
        "rows-of-a-shard-shuffled",
        "Rows of one shard that are chosen in another order come in the order of the shard.",
        "kerasext/storage/index/sharded_columns.py",
        "np.asarray(piece.places)[order]",
        "np.asarray(piece.places)",
        ("tests/storage/index/test_sharded_columns.py",),
    ),
    Mutation(
        "widest-text",
        "Text of an index is as wide as in the first shard, and longer text is cut.",
        "kerasext/shards/shard_folder.py",
        "= theirs, len(self.names)",
        "= theirs, 0",
        ("tests/storage/index/test_sharded_columns.py",),
    ),
    Mutation(
        "index-without-a-lock",
        "A thread closes the shard that another thread reads from.",
        "kerasext/storage/index/sharded_columns.py",
        "        self.lock = threading.RLock()",
        "        import contextlib\n\n        self.lock = contextlib.nullcontext()",
        ("tests/storage/index/test_sharded_columns.py",),
    ),
    Mutation(
        "ids-of-an-index",
        "`verify` does not compare the ids of an index with those of its shards.",
        "kerasext/storage/index/index_source.py",
        "np.array_equal(own.read_rows(*rows), stored.read_rows(*rows)) for",
        "len(own.read_rows(*rows)) == len(stored.read_rows(*rows)) for",
        ("tests/storage/index/test_index_source.py",),
    ),
    Mutation(
        "virtual-rows",
        "A virtual dataset has the first rows of each shard, whatever the order is.",
        "kerasext/storage/index/index_file.py",
        "sources[shard][first : first + count]",
        "sources[shard][:count]",
        ("tests/shards/test_virtual_file.py",),
    ),
    Mutation(
        "virtual-file-as-shard",
        "The file of virtual datasets is taken for one of the files that it leads to.",
        "kerasext/storage/index/index_source.py",
        "return _format_of(path) in {INDEX_FORMAT, VIRTUAL_FORMAT}",
        "return _format_of(path) == INDEX_FORMAT",
        ("tests/shards/test_virtual_file.py",),
    ),
    # Evaluating and reporting
    Mutation(
        "threshold-at-least",
        "`labels_at` gives the label 1 to a probability that equals the threshold.",
        "kerasext/storage/reading/labels_at.py",
        "above = positive > threshold.astype",
        "above = positive >= threshold.astype",
        ("tests/storage/reading/test_head.py",),
    ),
    Mutation(
        "names-of-another-head",
        "A head has the class names of the first head.",
        "kerasext/storage/prediction_file.py",
        "class_names=self._source.class_names().get(name)",
        "class_names=next(iter(self._source.class_names().values()), None)",
        ("tests/storage/reading/test_head.py",),
    ),
    Mutation(
        "spread-of-last-batch",
        "R2 takes the spread of the targets within batches only.",
        "kerasext/evaluation/figures/regression.py",
        "spread + np.square(shift) * self._known * added / total",
        "spread",
        ("tests/evaluation/figures/test_regression.py",),
    ),
    Mutation(
        "errors-of-unknown-targets",
        "Errors are averaged over numbers whose target is NaN, too.",
        "kerasext/evaluation/figures/regression.py",
        "added = len(errors) - unknown.sum(axis=0)",
        "added = len(errors) - 0 * unknown.sum(axis=0)",
        ("tests/evaluation/figures/test_regression.py",),
    ),
    Mutation(
        "confusion-transposed",
        "The confusion matrix has predicted classes first.",
        "kerasext/evaluation/figures/label_counts.py",
        "truth[known] * len(self.matrix) + labels[known]",
        "labels[known] * len(self.matrix) + truth[known]",
        ("tests/evaluation/figures/test_label_counts.py", "tests/evaluation/test_evaluate.py"),
    ),
    Mutation(
        "unlabelled-rows-counted",
        "Rows without a label count as wrong ones in the calibration curve.",
        "kerasext/evaluation/counts.py",
        "        sure[given < 0] = np.nan\n",
        "",
        ("tests/evaluation/test_evaluate.py",),
    ),
    Mutation(
        "interval-of-chance",
        "The interval of coverage is that of very many fitted rows.",
        "kerasext/evaluation/figures/set_report.py",
        "_log_beta(covered + a, missed + b)",
        "_log_beta(covered + a, missed + b + 1)",
        ("tests/evaluation/figures/test_set_report.py",),
    ),
    Mutation(
        "coverage-by-position",
        "Rows without a true label count in the coverage of prediction sets.",
        "kerasext/evaluation/figures/set_report.py",
        "counted = of_rows > 0",
        "counted = of_rows >= 0",
        ("tests/evaluation/figures/test_set_report.py",),
    ),
    Mutation(
        "uncalibrated-is-calibrated",
        "The figures without calibration are those with it.",
        "kerasext/evaluation/figures/uncalibrated.py",
        "self._calibration.undo(probabilities)",
        "self._calibration.apply(probabilities)",
        (
            "tests/evaluation/figures/test_uncalibrated.py",
            "tests/evaluation/figures/test_probability_counts.py",
        ),
    ),
    Mutation(
        "logarithms-of-rounded-zeros",
        "Probabilities stored in half precision have a likelihood.",
        "kerasext/evaluation/figures/probability_counts.py",
        "_EXACT = 4 ",
        "_EXACT = 1 ",
        ("tests/evaluation/figures/test_probability_counts.py",),
    ),
    Mutation(
        "kept-labels",
        "Labels from which the model abstains are those that are kept.",
        "kerasext/evaluation/figures/risk_coverage.py",
        "kept = ~abstained.reshape(",
        "kept = abstained.reshape(",
        (
            "tests/evaluation/figures/test_risk_coverage.py",
            "tests/evaluation/figures/test_probability_counts.py",
        ),
    ),
    Mutation(
        "stale-in-silence",
        "A stale calibration is evaluated without a word.",
        "kerasext/evaluation/evaluate.py",
        "        if view.stale:\n",
        "        if False:\n",
        ("tests/evaluation/figures/test_probability_counts.py",),
    ),
    Mutation(
        "sets-without-classes",
        "Prediction sets have no class dimension without probabilities.",
        "kerasext/storage/columns/dimension_scales.py",
        '_BY_CLASS = ("probabilities", "prediction_set")',
        '_BY_CLASS = ("probabilities",)',
        ("tests/storage/columns/test_dimension_scales.py",),
    ),
    Mutation(
        "fitted-of-another-head",
        "A head without a calibration of its own has a dict by head instead.",
        "kerasext/storage/reading/head.py",
        "            value = value.get(self.name)\n        return dict(value)",
        "            value = value.get(self.name, value)\n        return dict(value)",
        ("tests/storage/reading/test_head.py",),
    ),
    Mutation(
        "last-block-not-compared",
        "`compare` leaves out the rows after the last full block.",
        "kerasext/storage/reading/row_blocks.py",
        "        yield start, stop\n",
        "        if stop < rows or stop - start == most:\n            yield start, stop\n",
        ("tests/evaluation/drift/test_comparison.py",),
    ),
    Mutation(
        "last-step-not-counted",
        "The monitor leaves out the step that waits when `predict` ends.",
        "kerasext/callbacks/prediction_monitor.py",
        "        self._take_in()\n        self._update_bar(",
        "        self._waiting = None\n        self._update_bar(",
        ("tests/callbacks/test_prediction_monitor.py",),
    ),
    Mutation(
        "report-not-escaped",
        "Text of the file becomes markup of the report.",
        "kerasext/report/markup.py",
        'method="html")',
        'method="html").replace("&lt;", "<")',
        ("tests/report/test_markup.py", "tests/report/test_write_report.py"),
    ),
    Mutation(
        "report-hidden-characters",
        "Text of the file reaches the report with control characters and overrides of direction.",
        "kerasext/report/markup.py",
        "    text = text.translate(_SHOWN_AS_ESCAPES)\n",
        "",
        ("tests/report/test_write_report.py",),
    ),
    Mutation(
        "report-follows-links",
        "The report shows an image to which a link leads out of the folder of images.",
        "kerasext/report/thumbnails.py",
        "if not path.is_relative_to(root):",
        'if name.startswith("/") or ".." in Path(name).parts:',
        ("tests/report/test_thumbnails.py",),
    ),
    Mutation(
        "csv-formulas",
        "A spreadsheet runs a text that begins with a plus sign.",
        "kerasext/storage/exports/csv_file.py",
        'tuple("=+-@',
        'tuple("=-@',
        ("tests/storage/exports/test_exports.py",),
        needs="pandas",
    ),
    # Models whose confidence means something
    Mutation(
        "nan-in-the-set",
        "A class of a row with NaN is in its prediction set.",
        "kerasext/models/heads/calibrated.py",
        'ops.where(no_class, float("inf"), _threshold(sets))',
        "_threshold(sets)",
        ("tests/models/heads/test_calibrated.py",),
    ),
    Mutation(
        "nan-is-sure",
        "A row without a confidence does not abstain.",
        "kerasext/models/heads/calibrated.py",
        "ops.logical_or(unknown, below)",
        "below",
        ("tests/models/heads/test_calibrated.py",),
    ),
    Mutation(
        "logits-not-centred",
        "Vector scaling of logits and of their softmax differ.",
        "kerasext/models/heads/calibrated.py",
        "        logits -= ops.sum(logits, axis=-1, keepdims=True) / np.size(calibration.scale)\n",
        "",
        ("tests/models/heads/test_calibrated.py",),
    ),
    Mutation(
        "fitted-on-calibrated",
        "A second calibration is fitted on probabilities that the first one has changed.",
        "kerasext/models/prediction_mixin.py",
        "            self.calibration = self.prediction_sets = self.abstention = None\n",
        "            pass\n",
        ("tests/models/confidence/test_fitting.py",),
    ),
    Mutation(
        "file-of-a-stranger",
        "A file of other weights calibrates the model.",
        "kerasext/models/confidence/fitting_rows.py",
        "!= file.origin.get(FINGERPRINT)",
        "is None",
        ("tests/models/confidence/test_fitting.py",),
    ),
    Mutation(
        "half-precision-fits",
        "Rounded probabilities of a file make a wrong temperature.",
        "kerasext/models/confidence/fitting_rows.py",
        "stored.stored_dtype.itemsize < 4",
        "stored.stored_dtype.itemsize < 2",
        ("tests/models/confidence/test_fitting.py",),
    ),
    Mutation(
        "stale-unnoticed",
        "A calibration of other weights goes unnoticed.",
        "kerasext/models/confidence/stale.py",
        "if value.fitted_on and value.fitted_on != fitted_on(model, head, name, weights)",
        "if value.fitted_on is None",
        ("tests/models/confidence/test_stale.py",),
    ),
    Mutation(
        "threshold-not-in-abstention",
        "Abstention stays in force when the threshold of the labels changes.",
        "kerasext/models/confidence/stale.py",
        '    if name == "abstention":\n',
        '    if name == "":\n',
        ("tests/models/confidence/test_stale.py",),
    ),
    # Calibrating
    Mutation(
        "sets-without-plus-1",
        "The quantile of prediction sets lacks its correction for few rows.",
        "kerasext/calibration/conformal.py",
        "alpha * (rows + 1) - 1 + _ROUNDING",
        "alpha * rows + _ROUNDING",
        (
            "tests/calibration/test_conformal.py",
            "tests/calibration/test_prediction_sets.py",
        ),
    ),
    Mutation(
        "pixels-pooled",
        "Pixels of one image count as rows of their own, and coverage is too low.",
        "kerasext/calibration/prediction_sets.py",
        "        threshold = _threshold(true, alpha, weights, rows)",
        "        threshold = _threshold(true, alpha, None, len(true))",
        ("tests/calibration/test_prediction_sets.py",),
    ),
    Mutation(
        "sets-strict",
        "A class that just reaches the threshold of prediction sets is left out.",
        "kerasext/calibration/prediction_sets.py",
        "values.astype(np.float32) >= np",
        "values.astype(np.float32) > np",
        ("tests/calibration/test_prediction_sets.py",),
    ),
    Mutation(
        "sets-in-float64",
        "Prediction sets compare in double precision, and miss what float32 rounds up.",
        "kerasext/calibration/prediction_sets.py",
        "values.astype(np.float32) >= np.asarray(self.threshold, np.float32)",
        "values >= np.asarray(self.threshold)",
        ("tests/calibration/test_prediction_sets.py",),
    ),
    Mutation(
        "threshold-by-class-of-all",
        "The thresholds by class are of the rows of all classes.",
        "kerasext/calibration/prediction_sets.py",
        "_threshold(true[truth == number], alpha, None, rows)",
        "_threshold(true, alpha, None, len(true))",
        ("tests/calibration/test_prediction_sets.py",),
    ),
    Mutation(
        "sequence-goes-on",
        "Tests of thresholds go on after one that failed, and abstention promises too much.",
        "kerasext/calibration/abstention.py",
        "kept, risk) > delta:\n            break",
        "kept, risk) > delta:\n            continue",
        ("tests/calibration/test_abstention.py",),
    ),
    Mutation(
        "nan-not-abstained",
        "Rows without a confidence do not abstain.",
        "kerasext/calibration/abstention.py",
        "np.logical_not(values.astype(np.float32) >= np",
        "(values.astype(np.float32) < np",
        ("tests/calibration/test_abstention.py",),
    ),
    Mutation(
        "threshold-not-strict",
        "A threshold is judged as if a probability equal to it were a yes.",
        "kerasext/calibration/thresholds.py",
        'np.float32(before), side="right"',
        'np.float32(before), side="left"',
        ("tests/calibration/test_thresholds.py",),
    ),
    Mutation(
        "threshold-on-the-upper",
        "A threshold between neighbours in float32 is rounded up to the larger one.",
        "kerasext/calibration/thresholds.py",
        "np.where(halfway < upper, halfway, lower)",
        "halfway.copy()",
        ("tests/calibration/test_thresholds.py",),
    ),
    Mutation(
        "vector-not-centred",
        "Vector scaling is applied to logits that are not centred.",
        "kerasext/calibration/calibration.py",
        "softmax(scale * centred(log_probabilities(p)) + bias)",
        "softmax(scale * log_probabilities(p) + bias)",
        ("tests/calibration/test_calibration.py",),
    ),
    Mutation(
        "half-precision-calibrates",
        "Probabilities of half precision are taken, which make temperatures too high.",
        "kerasext/calibration/arguments.py",
        'values.dtype.kind != "f" or values.dtype.itemsize < 4',
        'values.dtype.kind != "f"',
        ("tests/calibration/test_arguments.py",),
    ),
    # What a prediction says
    Mutation(
        "label-of-nan",
        "A row with NaN has a class as its label instead of -1.",
        "kerasext/models/heads/tasks.py",
        'labels = ops.where(unknown, -1, ops.cast(labels, "int32"))',
        'labels = ops.cast(labels, "int32")',
        ("tests/models/heads/test_tasks.py", "tests/models/test_classifier.py"),
    ),
    Mutation(
        "top-k-reversed",
        "The probabilities of the top k classes come in the reverse order of their labels.",
        "kerasext/models/heads/tasks.py",
        'ops.where(unknown, float("nan"), largest)',
        'ops.where(unknown, float("nan"), ops.flip(largest, axis=-1))',
        ("tests/models/test_classifier.py",),
    ),
    Mutation(
        "binary-threshold",
        "A binary classifier ignores its threshold.",
        "kerasext/models/heads/tasks.py",
        'above = positive > head.setting("threshold")',
        "above = positive > 0.5",
        ("tests/models/heads/test_tasks.py",),
    ),
    Mutation(
        "multi-label-threshold",
        "A multi-label classifier ignores its thresholds.",
        "kerasext/models/heads/tasks.py",
        "above = probabilities > threshold",
        "above = probabilities > 0.5",
        ("tests/models/heads/test_tasks.py",),
    ),
    Mutation(
        "confidence-of-the-other-class",
        "The confidence of a binary classifier is that of the likelier class, not of the label.",
        "kerasext/models/heads/tasks.py",
        "confidence = ops.where(above, positive, negative)",
        "confidence = ops.maximum(positive, negative)",
        ("tests/models/heads/test_tasks.py",),
    ),
    Mutation(
        "settings-of-another-head",
        "A head without a setting of its own gets that of the first head.",
        "kerasext/models/prediction_mixin.py",
        "return value.get(head, SETTINGS[name].default)",
        "return value.get(head, next(iter(value.values()), SETTINGS[name].default))",
        ("tests/models/test_settings.py",),
    ),
    Mutation(
        "class-indices-reversed",
        "A dict from name to number gives the names in the order of the dict.",
        "kerasext/models/settings.py",
        "return [by_number[number] for number in range(len(value))]",
        "return list(by_number.values())",
        ("tests/models/test_settings.py",),
    ),
    Mutation(
        "task-of-another-head",
        "A head that `tasks` does not name gets the task of the first head.",
        "kerasext/models/heads/tasks.py",
        "tasks.get(head, default)",
        "tasks.get(head, next(iter(tasks.values()), default))",
        ("tests/models/test_heads.py",),
    ),
    Mutation(
        "logarithm-as-scale",
        "A regressor says the logarithm of its standard deviation.",
        "kerasext/models/heads/tasks.py",
        "deviation = ops.exp(deviation)",
        "pass",
        ("tests/models/heads/test_tasks.py",),
    ),
    Mutation(
        "automatic-head-names",
        "A head of a list is called by a name that differs in each process.",
        "kerasext/models/heads/graph.py",
        "is_taken = has_automatic_name(layer) or layer.name.isdecimal()",
        "is_taken = layer.name.isdecimal()",
        ("tests/models/test_heads.py",),
    ),
    # The callback
    Mutation(
        "nested-names",
        "An output that is nested three deep loses the name of its outermost group.",
        "kerasext/callbacks/step_outputs.py",
        '"/".join(map(str, path))',
        '"/".join(map(str, path[-2:]))',
        ("tests/callbacks/test_step_outputs.py",),
    ),
    Mutation(
        "outputs-ignored",
        "`outputs` does not choose what is stored.",
        "kerasext/callbacks/step_rows.py",
        "chosen = choose(named, names)",
        "chosen = named",
        ("tests/callbacks/test_hdf5_prediction_writer.py",),
    ),
    Mutation(
        "ids-shifted",
        "Each row has the id of the row before it.",
        "kerasext/callbacks/row_columns.py",
        "column: np.ndarray = self._values[first_row : first_row + rows]",
        "column: np.ndarray = np.roll(self._values, 1)[first_row : first_row + rows]",
        ("tests/callbacks/test_row_columns.py",),
    ),
    Mutation(
        "keep-inverted",
        "The rows that `keep` rejects are stored, and no others.",
        "kerasext/callbacks/step_rows.py",
        "kept = _kept(keep,",
        "kept = ~_kept(keep,",
        ("tests/callbacks/test_step_rows.py",),
    ),
    Mutation(
        "keep-sees-bytes",
        "`keep` gets text as bytes, so that no comparison with `str` is true.",
        "kerasext/callbacks/step_rows.py",
        "array.dtype.kind not in TEXT_KINDS:",
        "True:",
        ("tests/callbacks/test_step_rows.py",),
    ),
    Mutation(
        "kept-row-numbers",
        "With `keep` the numbers of the rows begin at 0 in each step.",
        "kerasext/callbacks/step_rows.py",
        "rows[ROW] = step.first_row + np.flatnonzero(kept)",
        "rows[ROW] = np.flatnonzero(kept)",
        ("tests/callbacks/test_step_rows.py",),
    ),
    Mutation(
        "stopped-is-complete",
        "A file is complete though `stop_predicting` ended it before its last step.",
        "kerasext/callbacks/prediction_run.py",
        "            if is_whole:\n                self._finish()\n",
        "            self._finish()\n",
        ("tests/callbacks/test_ends_of_predict.py",),
    ),
    Mutation(
        "tap-left-behind",
        "After an error between two steps the next plain `predict` loses its first step.",
        "kerasext/keras_internals/predict/predict_functions.py",
        "alive = sys._current_frames().keys() - {threading.get_ident()}",
        "alive = sys._current_frames().keys()",
        (
            "tests/keras_internals/predict/test_predict_tap.py",
            "tests/callbacks/test_ends_of_predict.py",
        ),
    ),
    Mutation(
        "jax-weights-lost",
        "On JAX a model has no weights after an error in `predict`.",
        "kerasext/keras_internals/predict/predict_tap.py",
        "        except BaseException as error:\n            self._attach(state)\n",
        "        except BaseException as error:\n",
        ("tests/callbacks/test_ends_of_predict.py", "tests/callbacks/test_fault_matrix.py"),
        backend="jax",
    ),
    Mutation(
        "jax-batches-of-a-step",
        "On JAX only the first batch is kept of a step with several.",
        "kerasext/keras_internals/predict/jax_state.py",
        "parts[0] if len(parts) == 1 else concatenate(parts)",
        "parts[0]",
        ("tests/keras_internals/predict/test_jax_state.py",),
        backend="jax",
    ),
    # Resuming
    Mutation(
        "resume-skips-a-step",
        "A resumed `predict` skips the step of which only some rows are in the file.",
        "kerasext/callbacks/prediction_run.py",
        "        return self.rows_seen + rows < self.rows_known",
        "        return self.rows_seen < self.rows_known",
        ("tests/callbacks/test_resume.py",),
    ),
    Mutation(
        "checksum-without-order",
        "A checksum does not see that blocks of a chunk were exchanged.",
        "kerasext/storage/format/checksums.py",
        "zlib.crc32(array.reshape(-1).view(np.uint8).data, before)",
        "(int(array.reshape(-1).view(np.uint8).sum(dtype=np.uint32)) + before) % 2**32",
        ("tests/storage/format/test_checksums.py",),
    ),
    Mutation(
        "rest-not-compared",
        "Rows of a chunk that is not full are not compared with the commit record.",
        "kerasext/storage/reading/verification.py",
        "return file_checksum(found) == source.state.rows_checksum",
        "return file_checksum(found) >= 0",
        ("tests/storage/format/test_checksums.py", "tests/storage/reading/test_verification.py"),
    ),
    Mutation(
        "resume-on-damaged-chunks",
        "After a kill a resume builds on full chunks that do not match their checksums.",
        "kerasext/storage/reading/verification.py",
        "            if not matches:\n                break\n",
        "",
        ("tests/storage/reading/test_verification.py",),
    ),
    Mutation(
        "rename-not-synced",
        "After a loss of power a finished file can be missing, because its folder was not synced.",
        "kerasext/common/atomic_file.py",
        "    if durable:\n        sync_folder(path.parent)\n",
        "",
        ("tests/common/test_durable.py",),
    ),
    Mutation(
        "short-write",
        "A write of which the system takes only a part is not continued.",
        "kerasext/common/durable.py",
        "        left, offset = left[written:], offset + written\n",
        "        break\n",
        ("tests/common/test_durable.py",),
    ),
    Mutation(
        "failed-job-finished",
        "`finish` says nothing of an error that was raised before.",
        "kerasext/storage/writing/background_writer.py",
        "        if self._failure is not None:\n",
        "        if False:\n",
        ("tests/storage/writing/test_background_writer.py",),
    ),
    Mutation(
        "tap-of-another-thread",
        "A step goes to the file of another thread that predicts with the same model.",
        "kerasext/keras_internals/predict/predict_functions.py",
        "        stand_in = self._stand_ins.get(threading.get_ident())\n",
        "        stand_in = next(iter(self._stand_ins.values()), None)\n",
        ("tests/callbacks/test_threads.py",),
    ),
    Mutation(
        "complete-file-of-other-data",
        "Resuming a complete file does not compute its first step again.",
        "kerasext/callbacks/prediction_run.py",
        "            if self.rows_seen == 0:\n                return False",
        "            if self.rows_seen < 0:\n                return False",
        ("tests/callbacks/test_resume.py",),
    ),
    Mutation(
        "complete-file-of-more-rows",
        "Resuming a complete file does not compare the number of rows.",
        "kerasext/callbacks/prediction_run.py",
        "            if self.rows_seen != self.rows_known:\n",
        "            if False:\n",
        ("tests/callbacks/test_resume.py", "tests/inference/test_predict_to_hdf5.py"),
    ),
    Mutation(
        "names-as-weights",
        "Names that Keras takes for sample weights are dropped without an error.",
        "kerasext/callbacks/prediction_run.py",
        "        if self._steps == 0:\n            check_weights(batches, self._model)\n",
        "",
        ("tests/callbacks/test_row_columns.py",),
    ),
    Mutation(
        "shuffled-paths-as-ids",
        "The file paths of a shuffled data set are stored as ids of other rows.",
        "kerasext/keras_internals/dataset_order.py",
        'return has_paths and any("shuffle" in type(part).__name__.lower() for part in chain)',
        "return False",
        ("tests/keras_internals/test_dataset_order.py",),
    ),
    Mutation(
        "own-predict-lost",
        "The preprocessing of a class with its own `predict` is lost without an error.",
        "kerasext/keras_internals/own_methods.py",
        "        elif method is not implementation(keras.Model, name)[1]:\n",
        "        elif False:\n",
        (
            "tests/keras_internals/test_own_methods.py",
            "tests/models/test_from_model.py",
            "tests/inference/test_own_predict.py",
        ),
    ),
    Mutation(
        "own-class-lost",
        "`from_model` drops the class of a model with a graph, with all its methods.",
        "kerasext/models/from_model.py",
        "functional is not None and model_class in _KERAS_CLASSES",
        "functional is not None",
        ("tests/models/test_from_model.py",),
    ),
    Mutation(
        "names-hide-each-other",
        "A mixin hides a method of the model's class that has the name of one of its own.",
        "kerasext/models/from_model.py",
        "taken = sorted(theirs & cls._names())",
        "taken = []",
        ("tests/models/test_from_model.py",),
    ),
    Mutation(
        "predict-function-shared",
        "A model that `from_model` made and the one that it was made of share a predict function.",
        "kerasext/keras_internals/shared_state.py",
        ' and not name.startswith("_kerasext")',
        "",
        ("tests/keras_internals/test_shared_state.py", "tests/models/test_from_model.py"),
    ),
    Mutation(
        "own-predict-not-compiled",
        "`compile_predict` leaves out what the model's own `predict` does.",
        "kerasext/inference/compile_predict.py",
        'if own_methods(model, "predict", "make_predict_function"):',
        "if False:",
        ("tests/inference/test_compile_predict.py",),
    ),
    Mutation(
        "missing-get-config",
        "A mixin hides Keras's error for a missing `get_config`.",
        "kerasext/keras_internals/saving.py",
        "        setattr(marked, _MARK, True)\n",
        "",
        ("tests/models/test_settings.py",),
    ),
    Mutation(
        "settings-of-a-mixin-dropped",
        "`from_model` drops the settings of a model that has a mixin already.",
        "kerasext/models/from_model.py",
        "**cls._settings_of(model, settings), **settings}",
        "**settings}",
        ("tests/models/test_from_model.py", "tests/models/test_settings.py"),
    ),
    Mutation(
        "stale-threshold",
        "A function of `compile_predict` uses the threshold that the model had before.",
        "kerasext/inference/compile_predict.py",
        "self._model.settings_version if self._has_settings else 0",
        "0",
        ("tests/inference/test_compile_predict.py",),
    ),
    Mutation(
        "resume-of-another-model",
        "A file that one model has begun is finished by another.",
        "kerasext/storage/writing/resume.py",
        "if given != stored:",
        "if not given:",
        ("tests/callbacks/test_resume.py",),
    ),
    Mutation(
        "fingerprint-without-settings",
        "A model with another threshold is taken for the one that began the file.",
        "kerasext/models/fingerprint.py",
        "blake2b(settings.encode(), digest_size=16)",
        "blake2b(digest_size=16)",
        ("tests/models/test_fingerprint.py",),
    ),
    Mutation(
        "known-rows-not-compared",
        "A resumed run accepts other data, because its first rows are not compared.",
        "kerasext/storage/writing/repeated_rows.py",
        "        if not _is_same(column.spec, stored, given):",
        "        if _is_same(column.spec, stored, given) is None:",
        ("tests/callbacks/test_resume.py",),
    ),
    Mutation(
        "known-ids-not-compared",
        "A resumed run goes on with other ids as long as one of a block is the same.",
        "kerasext/storage/writing/skipped_ids.py",
        "if not np.all(same):",
        "if not np.any(same):",
        ("tests/storage/writing/test_skipped_ids.py",),
    ),
    Mutation(
        "unchecked-resume-not-counted",
        "A file does not say that a resumed run went on without comparing values.",
        "kerasext/storage/writing/file_writer.py",
        "unchecked_resumes=int(known > 0 and not self._resume_check)",
        "unchecked_resumes=0",
        ("tests/callbacks/test_resume_check.py",),
    ),
    Mutation(
        "skipped-targets-not-skipped",
        "Targets of an iterable go to other rows if a resumed run skips some.",
        "kerasext/callbacks/prediction_run.py",
        "            self._columns.skip(rows)",
        "            pass",
        ("tests/callbacks/test_row_columns.py",),
    ),
    # Whole jobs
    Mutation(
        "rows-after-a-failed-batch",
        "Rows of a batch that was computed beside one that failed are written in its place.",
        "kerasext/inference/array_loop.py",
        "            self._drop()  # later",
        "            pass  # later",
        ("tests/inference/test_array_loop.py",),
    ),
    Mutation(
        "batches-beside-hooks",
        "A batch is computed while a callback changes the weights for the next one.",
        "kerasext/inference/array_loop.py",
        "step.in_threads > 1 and not self._one_by_one",
        "step.in_threads > 1",
        ("tests/inference/test_array_loop.py",),
    ),
    Mutation(
        "random-batches-in-threads",
        "Two batches of a model that is random in `predict` are computed at once, in any order.",
        "kerasext/keras_internals/predict/job_step.py",
        "is_for_threads and concrete is not None and not _changes_state(concrete.graph)",
        "is_for_threads and concrete is not None",
        ("tests/keras_internals/predict/test_job_step.py",),
    ),
    Mutation(
        "resumed-with-other-compilation",
        "A job that XLA has compiled is resumed without XLA.",
        "kerasext/inference/array_job.py",
        "        if stored is not None:\n            return stored\n",
        "",
        ("tests/inference/test_jit_compile.py",),
    ),
    Mutation(
        "fixed-batch-not-filled",
        "The last batch of a model with a fixed batch size is smaller than that size.",
        "kerasext/inference/array_job.py",
        "self._is_filled_up = self._shards > 1 or self._fixed_size is not None",
        "self._is_filled_up = self._shards > 1",
        ("tests/inference/test_fixed_batches.py",),
    ),
    Mutation(
        "columns-in-another-order",
        "The columns of a data frame go to other inputs than those of their name.",
        "kerasext/keras_internals/model_inputs.py",
        "columns = [x[[name]] for name in names]",
        "columns = [x[[name]] for name in x.columns][: len(names)]",
        ("tests/inference/test_input_dtypes.py",),
        needs="pandas",
    ),
    Mutation(
        "last-batch-dropped",
        "The last batch of an array is left out if it is not full.",
        "kerasext/inference/row_slices.py",
        "for start in range(0, len(rows), size))",
        "for start in range(0, len(rows) - size + 1, size))",
        ("tests/inference/test_row_slices.py",),
    ),
    Mutation(
        "images-shifted",
        "Each image after the first few of a slice has the pixels of another one.",
        "kerasext/inference/image_folder.py",
        "[self._read(self._names[chosen[row]])",
        "[self._read(self._names[chosen[row - part.start]])",
        ("tests/inference/test_image_folder.py",),
        needs="PIL",
    ),
    Mutation(
        "classes-without-empty-folders",
        "Folders without images are no classes, so that the numbers differ from those of training.",
        "kerasext/inference/image_paths.py",
        "{*map(as_text, folders), *of_images}",
        "{*of_images}",
        ("tests/inference/test_image_folder.py",),
        needs="PIL",
    ),
    Mutation(
        "half-an-image",
        "An image that is made smaller takes the left neighbours of a pixel for the right ones.",
        "kerasext/inference/image_pixels.py",
        "np.arange(width, 2 * width)",
        "np.arange(width)",
        ("tests/inference/test_image_pixels.py",),
        needs="PIL",
    ),
    Mutation(
        "jpeg-on-its-side",
        "The width of a small JPEG is taken for its height.",
        "kerasext/inference/image_pixels.py",
        "size = wide << 8 | narrow, high << 8 | low",
        "size = high << 8 | low, wide << 8 | narrow",
        ("tests/inference/test_image_pixels.py",),
        needs="PIL",
    ),
    Mutation(
        "skipped-images-keep-targets",
        "Images that are skipped leave their targets to the images after them.",
        "kerasext/cli/predict_input.py",
        "np.delete(np.asarray(column), positions, axis=0)",
        "np.asarray(column)[: len(images)]",
        ("tests/cli/test_predict.py",),
        needs="PIL",
    ),
    Mutation(
        "job-skips-a-batch",
        "A resumed job begins after the batch of which only some rows are in the file.",
        "kerasext/inference/array_job.py",
        "self._skip_to(max(known - 1, 0) // size * size)",
        "self._skip_to(math.ceil(known / size) * size)",
        ("tests/inference/test_predict_to_hdf5.py",),
    ),
    Mutation(
        "compiled-rows",
        "A function of `compile_predict` returns the rows that it was filled up with.",
        "kerasext/inference/compile_predict.py",
        "return output[:rows]",
        "return output[-rows:]",
        ("tests/inference/test_compile_predict.py",),
    ),
    Mutation(
        "cli-resume-ignored",
        "`kerasext predict --resume` begins again and replaces the file.",
        "kerasext/cli/predict.py",
        'mode="resume" if args.resume else "w" if args.overwrite else "x"',
        'mode="w" if args.resume or args.overwrite else "x"',
        ("tests/cli/test_predict.py",),
    ),
    Mutation(
        "cli-other-files",
        "`kerasext predict` reads a virtual dataset, whose rows are in other files.",
        "kerasext/cli/inputs.py",
        "if found.is_virtual or found.external:",
        "if found.external:",
        ("tests/cli/test_inputs.py",),
    ),
    Mutation(
        "cli-full-disk",
        "A full disk has the exit code of arguments that can't be used.",
        "kerasext/cli/exit_codes.py",
        "    OSError: FAILED,",
        "    OSError: UNUSABLE,",
        ("tests/cli/test_exit_codes.py",),
    ),
    Mutation(
        "import-registers-nothing",
        "Keras does not know the ready-made models after `import kerasext`.",
        "kerasext/__init__.py",
        'if "keras" in sys.modules:',
        "if TYPE_CHECKING:",
        ("tests/models/test_load_model.py",),
    ),
    Mutation(
        "ray-targets",
        "The sink for Ray Data writes the target of another row.",
        "kerasext/ray/hdf5_datasink.py",
        "name: stacked(name, column) for",
        "name: stacked(name, column[::-1] if name == TARGETS else column) for",
        ("tests/ray/test_hdf5_datasink.py",),
        needs="ray",
    ),
    Mutation(
        "hdf5-without-its-lock",
        "HDF5 is called past h5py while another thread is in it, which corrupts memory.",
        "kerasext/storage/writing/swmr_file.py",
        "    with_phil(_read_metadata_once)(access)",
        "    _read_metadata_once(access)",
        ("tests/storage/writing/test_swmr_file.py",),
    ),
]


class Outcome(NamedTuple):
    """How a run of pytest ended.

    Args:
        passed: Bool. Whether all tests passed.
        noticed: String. The first test that failed, or that time ran out; `""` if neither.
        output: String. The end of pytest's output.
    """

    passed: bool
    noticed: str
    output: str


def environment(copy: Path, backend: str) -> dict[str, str]:
    """The environment in which Python imports the copy, and not an installed kerasext."""
    return {**os.environ, "PYTHONPATH": str(copy), "KERAS_BACKEND": backend}


@contextlib.contextmanager
def copied_checkout() -> Iterator[Path]:
    """Copies the files that Git tracks to a temporary folder, and removes it at the end.

    Each mutation gets a new copy: Python does not compile a file again that was changed within the
    same second and has kept its size.
    """
    git = shutil.which("git") or "git"
    names = subprocess.check_output([git, "ls-files", "-z"], cwd=ROOT, text=True)
    with tempfile.TemporaryDirectory(prefix="kerasext-mutation-") as folder:
        copy = Path(folder) / "checkout"
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy / name)
        yield copy


def run_tests(
    copy: Path, tests: Iterable[str], backend: str, *, slow: bool, timeout: float = TIMEOUT
) -> Outcome:
    """Runs tests of a copy until the first one fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "--tb=no"]
    command += ["-p", "no:cacheprovider", "-o", f"addopts={ADDOPTS}"]
    command += [] if slow else ["-m", "not slow"]
    log = copy.parent / "output.txt"  # not a pipe: a process that a test left would keep it open
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *tests],
            cwd=copy,
            env=environment(copy, backend),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout)
        except BaseException as error:  # also Ctrl-C, which does not reach another session
            os.killpg(process.pid, signal.SIGKILL)  # and the processes that the tests started
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return Outcome(passed=False, noticed=f"timeout after {timeout} s", output="")
    text = log.read_text(errors="replace")
    # Without `::` it is a file that pytest could not import.
    failed = re.search(r"^(?:FAILED|ERROR) (\S+?::.+?)(?: - .*)?$", text, re.MULTILINE)
    noticed = failed[1] if failed and code == 1 else ""
    return Outcome(passed=code == 0, noticed=noticed, output=text[-2000:])


def check_copy_is_tested() -> None:
    """Raises `RuntimeError` if Python does not import kerasext from the copy."""
    with copied_checkout() as copy:
        code = "import kerasext; print(kerasext.__file__)"
        found = subprocess.check_output(
            [sys.executable, "-c", code],
            cwd=copy.parent,
            env=environment(copy, "tensorflow"),
            text=True,
        ).strip()
        if not Path(found).is_relative_to(copy):
            raise RuntimeError(f"kerasext must be imported from the copy. Received: {found}")


def passes_unmutated(mutations: Iterable[Mutation]) -> bool:
    """Whether the tests of all mutations pass on a copy without a mutation."""
    groups: dict[tuple[str, bool], set[str]] = {}
    for mutation in mutations:
        if not mutation.missing:
            groups.setdefault((mutation.backend, mutation.slow), set()).update(mutation.tests)
    passed = True
    for (backend, slow), tests in groups.items():
        began = time.monotonic()
        with copied_checkout() as copy:
            outcome = run_tests(copy, sorted(tests), backend, slow=slow, timeout=BASELINE_TIMEOUT)
        say(f"unmutated, {backend}", "passed" if outcome.passed else "FAILED", began, outcome)
        passed = passed and outcome.passed
    return passed


def is_noticed(mutation: Mutation) -> bool:
    """Whether the tests notice a mutation, or can't run because something is not installed."""
    began = time.monotonic()
    if mutation.missing:
        say(mutation.name, "skipped", began, detail=f"{mutation.missing} is not installed")
        return True
    with copied_checkout() as copy:
        path = copy / mutation.file
        path.write_text(path.read_text().replace(mutation.old, mutation.new))
        outcome = run_tests(copy, mutation.tests, mutation.backend, slow=mutation.slow)
    if outcome.passed:
        say(mutation.name, "NOT NOTICED", began, detail=" ".join(mutation.tests))
    else:
        say(mutation.name, "noticed" if outcome.noticed else "ERROR", began, outcome)
    return bool(outcome.noticed)


def say(
    name: str, verdict: str, began: float, outcome: Outcome | None = None, detail: str = ""
) -> None:
    """Prints a line of the table, and pytest's output if it could not run the tests."""
    detail = outcome.noticed if outcome else detail
    print(f"{name:<30} {verdict:<12} {time.monotonic() - began:5.0f} s  {detail}".rstrip())
    if outcome and not outcome.passed and not outcome.noticed:
        print(outcome.output)
    sys.stdout.flush()


def main() -> int:
    """Runs the command."""
    by_name = {mutation.name: mutation for mutation in MUTATIONS}
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", metavar="NAME", nargs="*", help="a mutation; default: all")
    parser.add_argument("--list", action="store_true", help="show what each mutation breaks")
    parser.add_argument(
        "--no-baseline", action="store_true", help="do not run the tests without a mutation first"
    )
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in by_name]
    if unknown:
        parser.error(f"unknown mutations {unknown}; --list shows all names")
    chosen = [by_name[name] for name in args.names or by_name]
    if args.list:
        for mutation in chosen:
            print(f"{mutation.name:<30} {mutation.breaks}")
        return 0
    check_copy_is_tested()
    moved = [mutation for mutation in chosen if mutation.places != 1]
    for mutation in moved:
        where = f"{mutation.places} times in {mutation.file}"
        say(mutation.name, "MOVED", time.monotonic(), detail=where)
    chosen = [mutation for mutation in chosen if mutation not in moved]
    if not args.no_baseline and not passes_unmutated(chosen):
        return 1
    unnoticed = [mutation for mutation in chosen if not is_noticed(mutation)]
    return 1 if moved or unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
