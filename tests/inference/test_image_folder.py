"""`ImageFolder`: listing, classes and slices. The pixels of one image: `test_image_pixels.py`."""

import multiprocessing
import os
import pickle
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from kerasext import PredictionFile
from kerasext.evaluation import evaluate
from kerasext.inference import ImageFolder, UnreadableImageError, predict_to_hdf5
from kerasext.inference.row_slices import can_slice
from kerasext.models import ClassifierModel

SUFFIXES = ("jpg", "png", "bmp", "JPEG")


@pytest.fixture
def folder(tmp_path):
    """A folder of 40 images in two folders, of random pixels, formats and sizes."""
    random = np.random.default_rng(0)
    for number in range(40):
        pixels = random.integers(0, 256, (*random.integers(20, 60, 2), 3)).astype(np.uint8)
        below = tmp_path / "photos" / ("dog" if number % 3 else "cat/indoors")
        below.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(below / f"{number:02}.{SUFFIXES[number % 4]}")
    return tmp_path / "photos"


@pytest.fixture
def images(folder):
    """The folder as an array."""
    return ImageFolder(folder, image_size=(16, 24))


def cut_short(path):
    """Damages an image in a way that only decoding shows."""
    path.write_bytes(path.read_bytes()[:-100])


def test_paths(folder):
    """Images of all folders below, in the order of their paths, and nothing else."""
    (folder / "notes.txt").write_text("no image")
    images = ImageFolder(folder, image_size=(8, 8))
    assert len(images.paths) == 40
    assert images.paths == sorted(images.paths)
    assert {"cat/indoors/00.jpg", "dog/01.png", "dog/07.JPEG"} <= set(images.paths)


def test_what_macos_adds_is_no_image(folder, images):
    """The shadow files of macOS and the folder that its archives have are left out."""
    for name in ("._a.jpg", "__MACOSX/b.jpg", "cat/__MACOSX/c.jpg", "dog/._d.PNG"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\5\x16\7")
    again = ImageFolder(folder, image_size=(8, 8))
    assert (again.paths, again.class_names) == (images.paths, images.class_names)


def test_links(folder, tmp_path):
    """Links to images are read. Links to folders are not followed, with a warning."""
    (folder / "dog/link.jpg").symlink_to(folder / "cat/indoors/00.jpg")
    (folder / "bird").symlink_to(folder / "cat")
    (folder / "dog/below").symlink_to(folder)
    with pytest.warns(UserWarning, match="Links to folders .*'bird' and 1 more"):
        images = ImageFolder(folder, image_size=(16, 24))
    assert len(images) == 41
    first, link = images.paths.index("cat/indoors/00.jpg"), images.paths.index("dog/link.jpg")
    np.testing.assert_array_equal(images[first], images[link])


@pytest.mark.skipif(os.name != "posix", reason="names are text there")
def test_names_of_any_bytes(tmp_path):
    """A byte of a name that is not UTF-8 is written as its number; the image is read."""
    (tmp_path / "photos").mkdir()
    Image.new("L", (8, 8), 50).save(tmp_path / "plain.png")
    path = os.fsencode(tmp_path / "photos") + b"/caf\xe9"
    try:
        os.mkdir(path)  # noqa: PTH102
        with open(path + b"/\xff.png", "wb") as file:  # noqa: PTH123
            file.write((tmp_path / "plain.png").read_bytes())
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    images = ImageFolder(tmp_path / "photos")
    assert images.paths == [r"caf\xe9/\xff.png"]
    assert images.class_names == [r"caf\xe9"]
    assert (images[:] == 50).all()


def test_classes(images):
    """The first folder of each path is its class; classes are in alphabetical order."""
    assert images.class_names == ["cat", "dog"]
    assert images.labels.dtype == np.int32
    names = [images.class_names[label] for label in images.labels]
    assert names == [path.split("/")[0] for path in images.paths]
    assert len(set(names)) == 2


def test_classes_are_those_of_keras(folder, images):
    """Empty folders are classes and hidden ones are not, so that numbers agree with Keras."""
    (folder / "bird").mkdir()
    (folder / ".hidden").mkdir()
    dataset = keras.utils.image_dataset_from_directory(folder, shuffle=False, verbose=False)
    images = ImageFolder(folder, image_size=(8, 8))
    assert images.class_names == dataset.class_names == ["bird", "cat", "dog"]
    numbers = {
        os.path.relpath(path, folder).replace(os.sep, "/"): int(label)
        for path, label in zip(
            dataset.file_paths, np.concatenate([y for _, y in dataset]), strict=True
        )
    }
    assert dict(zip(images.paths, images.labels.tolist(), strict=True)) == numbers


def test_class_names_in_another_order(folder, images):
    """`class_names` gives the order of training, and may have classes without images."""
    given = ImageFolder(folder, image_size=(8, 8), class_names=("dog", "bird", "cat"))
    assert given.class_names == ["dog", "bird", "cat"]
    np.testing.assert_array_equal(given.labels, np.where(images.labels == 1, 0, 2))


@pytest.mark.parametrize("names", [["cat"], ["cat", "dog", "cat"], []])
def test_wrong_class_names(folder, names):
    """A folder that has no class name raises an error. So does a class name that occurs twice."""
    with pytest.raises(ValueError, match="each folder of images once"):
        ImageFolder(folder, image_size=(8, 8), class_names=names)


def test_images_without_classes(folder):
    """Images that lie directly in the folder have no class, so there are no labels."""
    Image.new("RGB", (8, 8)).save(folder / "new.png")
    images = ImageFolder(folder, image_size=(8, 8))
    assert (images.labels, images.class_names) == (None, None)
    with pytest.raises(ValueError, match=r"move the others .*'new\.png'"):
        ImageFolder(folder, image_size=(8, 8), class_names=["cat", "dog"])


def test_slices(images):
    """It is an array to slice, as `predict_to_hdf5` takes it."""
    assert can_slice(images)
    whole = np.asarray(images)
    assert (whole.shape, whole.dtype, len(images)) == ((40, 16, 24, 3), np.float32, 40)
    assert images.shape == whole.shape
    assert whole.std(axis=0).min() > 0  # the images differ
    for rows in (
        *(slice(20, 33), slice(None, None, -3), slice(39, 90), slice(5, 5)),
        *([3, 1, 3], np.array([39, 0], np.int32), images.labels == 0, []),
    ):
        np.testing.assert_array_equal(images[rows], whole[rows])
    for row in (7, -1, np.int64(3)):
        np.testing.assert_array_equal(images[row], whole[row])
    assert sum(1 for _ in images) == 40


@pytest.mark.parametrize("rows", [40, [0, 40], (0, 1), [[0]], "a", 1.5, np.ones(3, bool)])
def test_wrong_rows(images, rows):
    """What is no row, or beyond the last one, is an IndexError as for an array."""
    with pytest.raises(IndexError):
        images[rows]


def test_conversion(images):
    """It converts to other dtypes, and never without a copy."""
    assert np.asarray(images, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy=False"):
        images.__array__(copy=False)
    assert repr(images).endswith("photos': shape (40, 16, 24, 3), float32>")


def test_pickled(images):
    """A copy in another process reads the same images."""
    copy = pickle.loads(pickle.dumps(images))  # noqa: S301 - made here
    np.testing.assert_array_equal(copy[5:9], images[5:9])
    assert copy.paths == images.paths


def _sum_of(images, queue):
    queue.put(float(images[:].sum()))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="nothing forks")
def test_after_a_fork(images):
    """A process that is forked reads with threads of its own, as the workers of a `DataLoader`."""
    expected = float(images[:].sum())  # which starts the threads of this one
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=_sum_of, args=(images, queue))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert queue.get() == expected


def test_size_of_the_first(tmp_path):
    """Without a size all images must have that of the first one; another one is named."""
    for number in range(3):
        Image.new("L", (9, 5), number).save(tmp_path / f"{number}.png")
    images = ImageFolder(tmp_path, color_mode="grayscale")
    assert images.shape == (3, 5, 9, 1)
    assert images[:].max() == 2
    Image.new("L", (5, 9)).save(tmp_path / "1.png")
    assert images[[0, 2]].shape == (2, 5, 9, 1)
    with pytest.raises(ValueError, match=r"image_size=.*'1\.png' of 9x5, the first of 5x9"):
        images[:]


@pytest.mark.parametrize("image_size", [(8,), (8, 0), (8, 8, 3), 8, "8x8"])
def test_wrong_size(folder, image_size):
    """A size that is none is refused."""
    with pytest.raises(ValueError, match="two positive numbers"):
        ImageFolder(folder, image_size=image_size)


def test_wrong_color_mode(folder):
    """The names of color modes are Keras's."""
    with pytest.raises(ValueError, match="'grayscale', 'rgb', 'rgba'"):
        ImageFolder(folder, color_mode="RGB")


def test_no_images(tmp_path):
    """A folder without images raises an error with the suffixes; a missing folder, another one."""
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"must have images.*\.jpeg"):
        ImageFolder(tmp_path)
    for path in (tmp_path / "notes.txt", tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match="must be a folder"):
            ImageFolder(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_folder_that_must_not_be_read(folder):
    """A folder that cannot be read is an error: its images would be missing silently."""
    (folder / "dog").chmod(0)
    try:
        with pytest.raises(PermissionError):
            ImageFolder(folder, image_size=(8, 8))
    finally:
        (folder / "dog").chmod(0o700)


def test_without_pillow(folder, monkeypatch):
    """Without Pillow the error has the command that installs it."""
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match="pip install pillow"):
        ImageFolder(folder)


@pytest.mark.parametrize("first", ["dog/10.bmp", "cat/indoors/00.jpg"])
def test_unreadable_image_in_a_slice(folder, images, first):
    """The first image of a slice that can't be read is named; other slices can be read."""
    for name in (first, "dog/29.png", "dog/38.bmp"):
        cut_short(folder / name)
    with pytest.raises(UnreadableImageError, match=rf"'{first}' can't be read: .*[Tt]runcated"):
        images[:]
    at = images.paths.index(first)
    assert images[at + 1 : at + 3].shape == (2, 16, 24, 3)


def test_image_that_vanished(folder, images):
    """A file that is removed after it was listed is named."""
    (folder / images.paths[3]).unlink()
    with pytest.raises(UnreadableImageError, match=f"'{images.paths[3]}' can't be read: No such"):
        images[2:5]


def test_first_image_is_unreadable(folder):
    """Without a size the first image is opened at once."""
    (folder / "cat/indoors/00.jpg").write_text("no image")
    with pytest.raises(UnreadableImageError, match="it is no image"):
        ImageFolder(folder)


def test_skip_bad(folder, images):
    """Images that can't be decoded are left out and listed with the reason."""
    (folder / "empty.jpg").write_bytes(b"")
    Image.fromarray(np.ones((4, 4), np.float32)).save(folder / "dog/float.tiff")
    cut_short(folder / "dog/10.bmp")
    kept = ImageFolder(folder, image_size=(16, 24), skip_bad=True)
    reasons = {image.path: image.reason for image in kept.skipped}
    assert set(reasons) == {"empty.jpg", "dog/float.tiff", "dog/10.bmp"}
    assert reasons["empty.jpg"] == "it is no image"
    assert "32 bits" in reasons["dog/float.tiff"]
    everything = sorted([*images.paths, "empty.jpg", "dog/float.tiff"])
    assert [everything[image.position] for image in kept.skipped] == [*reasons]
    assert kept.paths == [path for path in images.paths if path != "dog/10.bmp"]
    assert kept.class_names == ["cat", "dog"]  # `empty.jpg` is no image without a folder
    np.testing.assert_array_equal(kept[:], images[[path != "dog/10.bmp" for path in images.paths]])


def test_skip_bad_without_any_left(tmp_path):
    """If no image can be read, the first one is named."""
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"'a\.png' can't: it is no image"):
        ImageFolder(tmp_path, skip_bad=True)


def test_job(images, tmp_path):
    """A whole job with ids and targets, and its evaluation, need nothing but the folder."""
    inputs = keras.Input(images.shape[1:])
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    outputs = keras.layers.Dense(2, activation="softmax")(flat)
    model = ClassifierModel(inputs, outputs, class_names=images.class_names)
    options = {"ids": images.paths, "targets": images.labels, "verbose": 0}
    predict_to_hdf5(model, images, tmp_path / "out.h5", batch_size=8, **options).close()
    expected = model.predict(images[:], batch_size=8, verbose=0)
    with PredictionFile(tmp_path / "out.h5") as predictions:
        assert predictions["ids"][:].tolist() == images.paths
        np.testing.assert_array_equal(predictions["labels"][:], expected["labels"])
        accuracy = evaluate(predictions).accuracy
    assert accuracy == np.mean(expected["labels"] == images.labels)
