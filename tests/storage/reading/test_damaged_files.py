import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from recorded import with_checksum

from kerasext.storage import PredictionFile, PredictionFileWriter
from kerasext.storage.format.layout import SUMS

ROWS = 20
RECORD = "_kerasext/record"


@pytest.fixture
def valid(path):
    """A whole file of two outputs."""
    writer = PredictionFileWriter(
        path,
        attributes={"metadata": '{"fold": 1}', "prediction_metadata": "{}"},
        class_names=["cat", "dog"],
    )
    writer.append(
        {"labels": np.arange(ROWS) % 2, "a/x": np.ones((ROWS, 3), "f4"), "y": np.ones(ROWS)}
    )
    writer.finish()
    return path


def read(path):
    """Reads everything that a file shows."""
    with PredictionFile(path) as predictions:
        for name in ("class_names", "metadata", "prediction_metadata", "origin", "health"):
            getattr(predictions, name)
        repr(predictions)
        return {name: output[:] for name, output in predictions.items()}


def replace(name, **arguments):
    """Puts another dataset in the place of one."""

    def damage(file):
        del file[name]
        file.create_dataset(name, **arguments)

    return damage


def replace_by_external(file):
    """Puts an output, or what goes for one, into another file."""
    del file["y"]
    file.create_dataset("y", (ROWS,), "f8", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])


def replace_by_virtual(file):
    """Puts an output together from another file."""
    del file["y"]
    layout = h5py.VirtualLayout((ROWS,), "f8")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (ROWS,))
    file.create_virtual_dataset("y", layout)


def set_attribute(name, value, *, of="/"):
    """Gives an attribute another value."""

    def damage(file):
        file[of].attrs[name] = value

    return damage


def link_record(link):
    """Puts a link in the place of our own group."""

    def damage(file):
        file.move("_kerasext", "elsewhere")
        file["_kerasext"] = link

    return damage


def claim_rows(*, first=0, rows=ROWS, complete=1, seconds=0.0):
    """Makes the record say something else."""

    def damage(file):
        record = file[RECORD][()]
        record["first_row"], record["rows"] = first, rows
        record["first_data_row"], record["data_rows"] = first, rows
        record["complete"], record["seconds"] = complete, seconds
        file[RECORD][()] = with_checksum(record)

    return damage


def change_record(file):
    """Changes the record, and not its checksum."""
    record = file[RECORD][()]
    record["rows"] -= 1
    file[RECORD][()] = record


def claim_huge_shape(file):
    """Claims a shape, and as many committed rows, that no memory holds."""
    file["y"].resize((2**40,))
    file["labels"].resize((2**40,))
    file["a/x"].resize((2**40, 3))
    claim_rows(rows=2**40)(file)


UNLIMITED = {"shape": (ROWS,), "maxshape": (None,), "chunks": (ROWS,)}
DAMAGES = {
    "shorter than the record": (lambda file: file["y"].resize((ROWS - 1,)), "rows committed"),
    "huge shape": (claim_huge_shape, "can't be in"),
    "extent only": (lambda file: file["y"].resize((2**40,)), "can't be in"),
    "external storage": (replace_by_external, "external"),
    "virtual": (replace_by_virtual, "virtual"),
    "contiguous": (replace("y", data=np.ones(ROWS)), "chunks"),
    "strings of any length": (replace("y", dtype=h5py.string_dtype(), **UNLIMITED), "fixed width"),
    "lists": (replace("y", dtype=h5py.vlen_dtype("i4"), **UNLIMITED), "fixed width"),
    "references": (replace("y", dtype=h5py.ref_dtype, **UNLIMITED), "fixed width"),
    "compound": (replace("y", dtype=[("a", "i4"), ("b", "f4")], **UNLIMITED), "fixed width"),
    "opaque": (replace("y", dtype="V3", **UNLIMITED), "fixed width"),
    "scalar": (replace("y", data=1.0), "chunks"),
    "huge rows": (
        replace("y", shape=(ROWS, 2**33), maxshape=(None, None), chunks=(1, 2**20), dtype="f8"),
        "rows of",
    ),
    "external link to the record": (
        link_record(h5py.ExternalLink("elsewhere.h5", "/")),
        "'_kerasext/record' is a link to another file",
    ),
    "soft link to the record": (link_record(h5py.SoftLink("/elsewhere")), "no record"),
    "record of another type": (replace(RECORD, data=np.zeros(3)), "no record"),
    "record without its checksum": (change_record, "record of commits is"),
    "negative rows": (claim_rows(rows=-1), "record of commits is"),
    "first row beyond the rows": (claim_rows(first=ROWS + 1), "record of commits is"),
    "half complete": (claim_rows(complete=7), "record of commits is"),
    "no time": (claim_rows(seconds=np.nan), "record of commits is"),
    "format of another type": (set_attribute("format", [1, 2]), "must be a prediction file"),
    "format of bytes": (
        set_attribute("format", np.void(b"abc")),
        "must be a prediction file",
    ),
    "format without a value": (
        set_attribute("format", h5py.Empty("i4")),
        "must be a prediction file",
    ),
    "format of any length": (
        set_attribute("format", "kerasext.predictions"),
        "must be a prediction file",
    ),
    "external link": (
        lambda file: (file.pop("y"), file.update({"y": h5py.ExternalLink("/etc/hostname", "/")})),
        "'y' is a link to another file",
    ),
    "output that is gone": (lambda file: file.pop("y"), "'y' is gone"),
    "labels that are gone": (lambda file: file.pop("labels"), "'labels' is gone"),
    "version of another type": (set_attribute("format_version", [1, 1]), "format version 2"),
    "newer version": (set_attribute("format_version", 3), "version 2; install a newer kerasext"),
    "older version": (set_attribute("format_version", 1), "version 2; predict again"),
    "metadata that is no JSON": (set_attribute("metadata", np.bytes_("{")), "metadata"),
    "metadata without end": (set_attribute("metadata", np.bytes_("[" * 60_000)), "metadata"),
    "metadata that is a list": (set_attribute("metadata", np.bytes_("[]")), "must be an object"),
    "metadata that is a number": (set_attribute("metadata", 3), "metadata"),
    "metadata of any length": (set_attribute("metadata", "{}"), "fixed width"),
    "metadata of references": (
        lambda file: file.attrs.create("metadata", file.ref, dtype=h5py.ref_dtype),
        "fixed width",
    ),
    "metadata that is no UTF-8": (
        set_attribute("prediction_metadata", np.bytes_(b"\xff")),
        "prediction_metadata",
    ),
    "class names that are numbers": (
        set_attribute("class_names", [1, 2], of="labels"),
        "class names of 'labels'",
    ),
    "class names that are one": (
        set_attribute("class_names", "cat", of="labels"),
        "class names of 'labels'",
    ),
    "class names that are no UTF-8": (
        set_attribute("class_names", np.array([b"\xff"]), of="labels"),
        "class names of 'labels'",
    ),
}


@pytest.mark.parametrize("link", [h5py.ExternalLink, h5py.SoftLink])
def test_sums_are_not_looked_for_in_other_files(valid, tmp_path, link):
    """`verify` follows no link: sums that are not in their place are damage."""
    other = tmp_path / "other.h5"
    shutil.copy(valid, other)
    with PredictionFile(valid) as predictions:
        predictions.verify()
    with h5py.File(valid, "r+", libver=("v110", "v110")) as file:
        file["_kerasext/kept"] = file[f"{SUMS}/y"]
        del file[f"{SUMS}/y"]
        place = (other, f"/{SUMS}/y") if link is h5py.ExternalLink else ("/_kerasext/kept",)
        file[f"{SUMS}/y"] = link(*place)
    with PredictionFile(valid) as predictions, pytest.raises(ValueError, match="s of 'y'"):
        predictions.verify()


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_content(valid, damage):
    """What does not make sense is a ValueError that names the file and what is wrong."""
    change, message = DAMAGES[damage]
    with h5py.File(valid, "r+", libver=("v110", "v110")) as file:
        change(file)
    with pytest.raises(ValueError, match=message) as caught:
        read(valid)
    assert str(valid) in str(caught.value)


def add_committed_datatype(file):
    """Stores a type, as HDF5 can."""
    file["type"] = np.dtype("f4")


def add_loop(file):
    """Makes a group contain itself and the root."""
    file["a/loop"] = file["a"]
    file["a/root"] = file["/"]


def add_links(file):
    """Adds links to nowhere, to an output and to another file."""
    file["a/soft"] = h5py.SoftLink("/y")
    file["broken"] = h5py.SoftLink("/nowhere")
    file["a/other"] = h5py.ExternalLink("/etc/hostname", "/")


def add_name_that_is_no_text(file):
    """Names a group by bytes that are no UTF-8."""
    h5py.h5g.create(file.id, b"b\xff")


def add_attributes(file):
    """Adds attributes of other types, as plain h5py makes them."""
    file.attrs["note"] = "text of any length"
    file.attrs.create("more", file.ref, dtype=h5py.ref_dtype)


CHANGES = [
    add_committed_datatype,
    add_loop,
    add_links,
    add_name_that_is_no_text,
    add_attributes,
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_no_output(valid, change):
    """Links, loops, types and attributes that others may add are passed over."""
    with h5py.File(valid, "r+", libver=("v110", "v110")) as file:
        change(file)
    assert read(valid).keys() == {"labels", "a/x", "y"}


def test_deep_groups(valid):
    """Groups within groups, deeper than Python's stack."""
    with h5py.File(valid, "r+", libver=("v110", "v110")) as file:
        group = file["a"]
        for _ in range(3000):
            group = group.create_group("a")
    assert read(valid).keys() == {"labels", "a/x", "y"}


@pytest.mark.parametrize("where", range(48))
def test_flipped_bit_of_the_superblock(valid, where):
    """Every byte of the superblock is covered."""
    content = bytearray(valid.read_bytes())
    content[where] ^= 1
    valid.write_bytes(content)
    with pytest.raises(ValueError, match=valid.name):
        read(valid)


def test_chunk_that_can_not_be_read(path):
    """What HDF5 finds out only in reading names the file and the output."""
    writer = PredictionFileWriter(path)
    writer.append({"y": np.ones(ROWS)})
    writer.finish()
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        del file["y"]
        file.create_dataset("y", data=np.ones(ROWS), fletcher32=True, **UNLIMITED)
        chunk = file["y"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset] ^= 1
    path.write_bytes(content)
    with PredictionFile(path) as predictions:
        output = predictions["y"]
        for key in (0, [3, 1], slice(None), slice(0, 1)):
            with pytest.raises(ValueError, match=f"output 'y'.*{path}"):
                output[key]


@pytest.mark.parametrize(
    ("program", "cases"),
    [
        ("fuzz_prediction_file.py", 100),
        ("fuzz_index.py", 50),
        pytest.param("fuzz_prediction_file.py", 2000, marks=pytest.mark.slow),
        pytest.param("fuzz_index.py", 350, marks=pytest.mark.slow),
    ],
)
def test_fuzz(program, cases, tmp_path):
    """Bytes flipped, cut, zeroed and moved at random: an error with the name, or the right rows."""
    program = Path(__file__).parents[1] / program
    children = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        arguments = [str(folder), "0", str(number * cases), str(cases)]
        with (folder / "printed").open("wb") as printed:
            command = [sys.executable, "-W", "error", str(program), *arguments]
            children.append(
                (subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT), folder)
            )
    for child, folder in children:
        child.wait()
        printed = (folder / "printed").read_text()
        assert child.returncode == 0, printed[-3000:]
        outcomes = Counter(line.split(maxsplit=2)[2] for line in printed.splitlines())
        assert outcomes.keys() == {"read", "refused"}, outcomes
        assert outcomes.total() == cases
        assert min(outcomes.values()) > cases / 20
