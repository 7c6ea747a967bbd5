import base64
import io
import os

import h5py
import numpy as np
import pytest
from PIL import Image

from kerasext.inference import ImageFolder


def pictures(page):
    """The pictures of a page."""
    data = [attributes["src"].partition("base64,")[2] for attributes in page.attributes("img")]
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in data]


def columns_of(confidence, ids=None):
    """A file of confidences, with ids."""
    columns = {"confidence": np.array(confidence, "f4")}
    return columns if ids is None else {**columns, "ids": np.array(ids, "S64")}


@pytest.fixture
def folder(tmp_path):
    """A folder with a photo, a turned one, and a drawing that one sees through."""
    folder = tmp_path / "images"
    (folder / "a").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), "u1")
    Image.fromarray(noise).save(folder / "photo.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(folder / "turned.jpg", exif=exif)
    Image.new("RGBA", (200, 100), (255, 0, 0, 0)).save(folder / "a/drawing.png")
    return folder


def test_folder(report, folder):
    """The files whose names are the ids are shown small, and can be seen through."""
    ids = ["turned.jpg", "photo.jpg", "a/drawing.png"]
    page = report(columns_of([0.1, 0.2, 0.3], ids), images=folder)
    turned, photo, drawing = pictures(page)
    assert (photo.size, photo.format) == ((96, 72), "JPEG")
    assert turned.size == (96, 72)  # as Keras loads it for a model, which ignores Exif
    assert (drawing.size, drawing.mode) == ((96, 48), "RGBA")
    assert [attributes["alt"] for attributes in page.attributes("img")] == [
        f"Image of row {row}" for row in range(3)
    ]


def test_images_that_are_not_there(report, folder):
    """An image that is missing, or can't be read, is named, and the others are shown."""
    (folder / "text.png").write_text("no picture")
    page = report(columns_of([0.1, 0.2, 0.3], ["none.png", "text.png", "photo.jpg"]), images=folder)
    rows = page.table("Image", "Id")
    assert [row[:2] for row in rows] == [
        ["no such image", "none.png"],
        ["not readable: UnidentifiedImageError", "text.png"],
        ["", "photo.jpg"],
    ]
    assert len(pictures(page)) == 1


def test_ids_do_not_leave_the_folder(report, folder):
    """An id is text of a file: it can't choose an image from elsewhere on the disk."""
    Image.new("RGB", (4, 4)).save(folder.parent / "secret.png")
    ids = ["../secret.png", str(folder.parent / "secret.png"), "a/../../secret.png"]
    page = report(columns_of([0.1, 0.2, 0.3], ids), images=folder)
    assert [row[0] for row in page.table("Image")] == ["not in the folder of images"] * 3


def test_links_do_not_leave_the_folder(report, folder):
    """A link out of the folder is not followed, one inside it is, and no pipe is waited for."""
    Image.new("RGB", (4, 4)).save(folder.parent / "secret.png")
    (folder / "out.png").symlink_to(folder.parent / "secret.png")
    (folder / "outside").symlink_to(folder.parent)
    (folder / "in.png").symlink_to("photo.jpg")
    os.mkfifo(folder / "pipe.png")
    ids = ["out.png", "outside/secret.png", "in.png", "pipe.png"]
    page = report(columns_of([0.1, 0.2, 0.3, 0.4], ids), images=folder)
    cells = ["not in the folder of images"] * 2 + ["", "no such image"]
    assert [row[0] for row in page.table("Image")] == cells
    (folder.parent / "link").symlink_to(folder)  # which the user has chosen
    assert len(pictures(report(columns_of([0.1], ["photo.jpg"]), images=folder.parent / "link")))


def test_what_a_model_saw(report, folder):
    """The picture has the pixels that `ImageFolder` and Keras read, whatever Exif says."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, (height, width) in (("large.jpg", (40, 80)), ("small.png", (10, 20))):
        half = np.zeros((height, width, 3), "u1")
        half[:, : width // 2] = 255
        Image.fromarray(half).save(folder / name, exif=exif, quality=95)
        (shown,) = pictures(report(columns_of([0.1], [name]), images=folder))
        assert np.abs(np.asarray(shown, float) - half).mean() < 5
        assert not shown.getexif()  # by which a browser would rotate it
        images = ImageFolder(folder, image_size=(height, width))
        seen = images[images.paths.index(name)]
        assert np.abs(np.asarray(shown, float) - seen).mean() < 5


def test_formats_that_start_programs(report, folder):
    """PostScript, for which Pillow starts another program, is not opened."""
    Image.new("RGB", (4, 4)).save(folder / "page.eps")
    page = report(columns_of([0.1], ["page.eps"]), images=folder)
    assert page.table("Image")[0][0] == "not readable: UnidentifiedImageError"


def test_integer_ids(report, folder):
    """An id that is a number is the name of a file, too."""
    (folder / "photo.jpg").rename(folder / "7")
    columns = {"confidence": np.array([0.5], "f4"), "ids": np.array([7])}
    assert len(pictures(report(columns, images=str(folder)))) == 1


@pytest.mark.parametrize("kind", ["array", "memmap", "h5py"])
def test_arrays(report, tmp_path, kind):
    """Each row has its own image, whatever array they are in."""
    images = np.zeros((4, 6, 5), "u1")
    images[np.arange(4)] = (10 * np.arange(4))[:, None, None]
    if kind == "memmap":
        np.save(tmp_path / "images.npy", images)
        images = np.load(tmp_path / "images.npy", mmap_mode="r")
    if kind == "h5py":
        file = h5py.File(tmp_path / "images.h5", "w", driver="core", backing_store=False)
        images = file.create_dataset("images", data=images)
    page = report(columns_of([0.4, 0.3, 0.1, 0.2]), images=images)
    found = [np.asarray(picture) for picture in pictures(page)]
    assert [array.shape for array in found] == [(6, 5, 3)] * 4
    assert [int(array[0, 0, 0]) for array in found] == [20, 30, 10, 0]


def test_images_of_rows_that_were_not_kept(report):
    """Images of all data are found by the number of the row, those of the file by their place."""
    images = np.arange(10, dtype="u1")[:, None, None] * np.ones((10, 2, 2), "u1")
    columns = {**columns_of([0.1, 0.2]), "row": np.array([4, 8])}
    for given, expected in ((images, [4, 8]), (images[:2], [0, 1])):
        page = report(columns, images=given)
        assert [np.asarray(picture)[0, 0, 0] for picture in pictures(page)] == expected


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([[0, 128, 255]], "u1"), [0, 128, 255]),
        (np.array([[0, 0.5, 1]]), [0, 128, 255]),
        (np.array([[False, True, True]]), [0, 255, 255]),
        (np.array([[-1, 0, 1.0]]), [0, 128, 255]),
        (np.array([[0, 8, 16]]), [0, 128, 255]),
        (np.array([[np.nan, np.inf, 1]]), [0, 0, 255]),
        (np.array([[[0], [128], [255]]], "u1"), [0, 128, 255]),
    ],
)
def test_pixels(report, pixels, expected):
    """uint8 stays, [0, 1] is the share of white, others are stretched; one channel is grey."""
    page = report(columns_of([0.5]), images=pixels[None])
    assert np.asarray(pictures(page)[0])[0, :, 0].tolist() == expected
    assert page.attributes("img")[0]["class"] == "pixels"


def test_images_without_pixels(report):
    """An image that has no pixels is said to be unreadable."""
    page = report(columns_of([0.5]), images=np.zeros((1, 0, 4)))
    assert page.table("Image")[0][0].startswith("not readable")


def test_a_page_stays_small(report):
    """When pictures would make the page large the last are left out, and it says so."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 96, 96, 4), "u1")
    page = report(columns_of(np.linspace(0, 1, 300)), images=noise, rows=300)
    cells = [row[0] for row in page.table("Image")]
    assert cells[0] == ""
    assert cells[-1] == "left out, to keep the page small"
    assert len(page.bytes) < 2 * 2**20


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((1, 4, 4)), ValueError, "at least 2"),
        (np.zeros((2, 4)), ValueError, r"Received: shape=\(2, 4\)"),
        (np.zeros((2, 4, 4, 2)), ValueError, "1, 3 or 4 channels"),
        ([1, 2], TypeError, "Received: type.images.=list"),
        ("missing", FileNotFoundError, "Received: images='missing'"),
        (".", ValueError, "needs ids"),
    ],
)
def test_wrong_images(report, images, error, message):
    """Images that are not of the rows are an error that says what they should be."""
    with pytest.raises(error, match=message):
        report(columns_of([0.1, 0.2]), images=images)
