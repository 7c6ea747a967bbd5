"""What stands where in a prediction file."""

from collections.abc import Collection, Iterable

FORMAT = "kerasext.predictions"
INDEX_FORMAT = "kerasext.index"
VIRTUAL_FORMAT = "kerasext.virtual"  # of virtual datasets beside an index, for other tools
FORMAT_VERSION = 2

GROUP = "_kerasext"

RECORD = f"{GROUP}/record"
"""The one dataset for all that changes after the file is made; its size never does."""

SUMS = f"{GROUP}/sums"
"""Group with a dataset for each dataset of an output: the checksums of its chunks."""

OUTPUTS = f"{GROUP}/outputs"
"""Table of the names of the outputs, in their order. Other datasets are none of ours."""

SHARDS = f"{GROUP}/shards"
"""Group that only an index has, which holds no rows but those of `ids`. Its tables are:

| table | shape | content |
|---|---|---|
| `names` | (shards,) | names of the files, which stand beside the index |
| `facts` | (shards, 4) | the fields of `ShardFacts` |
| `runs` | (runs, 3) | rows that follow each other: number of the file, its first row, rows |
| `outputs` | (outputs,) | names of the outputs |
| `widest` | (outputs,) | number of a file that has the widest text of each output, 0 for numbers |
"""

SHARD_NAMES, SHARD_FACTS, SHARD_RUNS, SHARD_OUTPUTS, SHARD_WIDEST = (
    f"{SHARDS}/{part}" for part in ("names", "facts", "runs", "outputs", "widest")
)

INDEX = "index"
"""The attribute of a file of virtual datasets with the name of the index beside it."""

IDS, TARGETS, ROW = "ids", "targets", "row"
"""Columns beside the outputs: the id of each row, its target, and its number in the data. The file
has the numbers only if not all rows were kept; else `row` is only the name of an axis, see
`dimension_scales`."""

COLUMNS = frozenset({IDS, TARGETS, ROW})

PLAIN_OUTPUTS = "plain_outputs"
"""The attribute that lists outputs of the model which are called `ids`, `targets` or `row`,
separated by blanks. A file without such outputs does not have it."""

CLASS = "class"
"""The scale of the axis of the classes, unless an output is called so; a head has its own."""

RESERVED = frozenset({GROUP})
"""Names at the root that are not for outputs."""

CLASS_NAMES = "class_names"
CLASS_OUTPUTS = ("labels", "prediction_set", "probabilities", "top_k_labels")
"""The attribute with the names of the classes, and what the outputs that have it are called."""


def output_path(head: str, output: str) -> str:
    """The path of an output of a head; `""` is the head of a model with one, which has no group."""
    return f"{head}/{output}" if head else output


def head_and_output(path: str) -> tuple[str, str]:
    """The head that an output belongs to, and what the output is called there: `output_path`."""
    head, _, output = path.rpartition("/")
    return head, output


RAGGED_AXES = "ragged_axes"
"""The attribute of a group that is one output, whose rows differ in shape: axes of a row."""

MOST_AXES = 31
"""Of such a row: HDF5 and NumPy 1 have 32, and one is that of the rows."""

VALUES, ROW_SPLITS, ROW_SHAPES = "values", "row_splits", "row_shapes"
"""Its datasets: all numbers of all rows; where each row begins in them, and where the last one
ends; and, if rows have two or more axes, the shape of each."""


def check_not_reserved(names: Iterable[str], reserved: Collection[str]) -> None:
    """Raises `ValueError` for the first name that begins with a reserved one."""
    for name in names:
        if name.partition("/")[0] in reserved:
            raise ValueError(
                f"The names {sorted(reserved)} are reserved at the root of this prediction file; "
                "give the output another name, or leave it out with `outputs`. "
                f"Received: name={name!r}"
            )


def plain_outputs(names: Iterable[str], columns: Collection[str]) -> str:
    """The value of `PLAIN_OUTPUTS`: names that columns may have, and that are not in `columns`."""
    roots = {name.partition("/")[0] for name in names}
    return " ".join(sorted((roots & COLUMNS) - set(columns)))


def columns_of(names: Iterable[str], plain: object) -> frozenset[str]:
    """The columns beside the outputs.

    Args:
        names: Names of all outputs and columns.
        plain: The value of `PLAIN_OUTPUTS`, or `None`.
    """
    roots = {name.partition("/")[0] for name in names}
    others = plain.split() if isinstance(plain, str) else ()
    return frozenset((roots & COLUMNS) - set(others))


def with_groups(outputs: Iterable[str]) -> set[str]:
    """Names of outputs and of all groups that they are in."""
    return {
        name[:end]
        for name in outputs
        for end in (*(place for place, sign in enumerate(name) if sign == "/"), len(name))
    }


def check_names(names: Iterable[str]) -> None:
    """Raises `ValueError` for the first name that can't be the path of a dataset."""
    seen: set[str] = set()
    for name in names:
        parts = name.split("/")
        if not all(parts) or {".", ".."} & set(parts) or "\0" in name:
            raise ValueError(
                "The name of an output must be a path of non-empty parts other than '.' and '..', "
                f"without NUL characters. Received: name={name!r}"
            )
        check_not_reserved([name], RESERVED)
        if name in seen:
            raise ValueError(
                "Two outputs must not have the same path in the file; rename one of them. "
                f"Received: name={name!r} twice"
            )
        seen.add(name)
    for name in seen:
        parts = name.split("/")
        for end in range(1, len(parts)):
            parent = "/".join(parts[:end])
            if parent in seen:
                raise ValueError(
                    "An output must not stand where another one needs a group; rename one of them. "
                    f"Received: names {parent!r} and {name!r}"
                )
