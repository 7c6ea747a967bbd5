import keras
import numpy as np
import pytest
from PIL import Image

from kerasext.cli.image_folder import ImageError, ImageFolder, find_bad_images, find_images, resized
from kerasext.cli.messages import InputError
from kerasext.inference.row_slices import can_slice


def test_names(folder):
    """Images of all folders below in the order of their paths, and nothing else."""
    (folder / "notes.txt").write_text("no image")
    (folder / "UPPER.JPEG").write_bytes((folder / "flowers/00001.jpg").read_bytes())
    names = find_images(folder)
    assert len(names) == 61
    assert names == sorted(names)
    assert {"UPPER.JPEG", "china/roofs/00000.png", "flowers/00001.jpg"} <= set(names)


def test_what_macos_adds_is_no_image(folder):
    """The shadow files of macOS and the folder that its archives have are left out."""
    names = find_images(folder)
    for name in ("._a.jpg", "__MACOSX/b.jpg", "china/__MACOSX/c.jpg", "china/._d.PNG"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\5\x16\7")
    assert find_images(folder) == names


def test_no_images(tmp_path):
    """A folder without images says which suffixes images have."""
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=r"no images.*\.jpeg"):
        find_images(tmp_path)


@pytest.mark.backends("tensorflow", reason="the others resize a little otherwise")
@pytest.mark.parametrize(("channels", "mode"), [(1, "grayscale"), (3, "rgb"), (4, "rgba")])
@pytest.mark.parametrize("size", [(32, 48), (200, 150)])
def test_pixels_are_those_of_keras(tmp_path, channels, mode, size):
    """What a model was trained with by `image_dataset_from_directory` is what it predicts."""
    random = np.random.default_rng(0)
    for number in range(3):
        shape = (*random.integers(40, 120, 2), channels)
        pixels = random.integers(0, 256, shape).astype(np.uint8)
        Image.fromarray(pixels.squeeze()).save(tmp_path / f"{number}.png")
    dataset = keras.utils.image_dataset_from_directory(
        tmp_path, labels=None, image_size=size, color_mode=mode, shuffle=False, verbose=False
    )
    images = ImageFolder(tmp_path, find_images(tmp_path), (*size, channels))
    expected = np.concatenate([batch.numpy() for batch in dataset])
    assert images.shape == expected.shape
    np.testing.assert_allclose(images[:], expected, atol=1e-3)


def test_same_size_is_the_same():
    """An image of the size wanted keeps its pixels, to the last bit."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    np.testing.assert_array_equal(resized(pixels, 7, 5), pixels)


def test_slices(folder):
    """It is an array to slice, as `predict_to_hdf5` takes it."""
    images = ImageFolder(folder, find_images(folder), (16, 24, 3))
    assert can_slice(images)
    whole = np.asarray(images)
    assert (whole.shape, whole.dtype, len(images)) == ((60, 16, 24, 3), np.float32, 60)
    assert whole.std(axis=0).min() > 0  # the images differ
    np.testing.assert_array_equal(images[20:33], whole[20:33])


def test_sixteen_bits(tmp_path):
    """16 bits become 0 to 255, not cut off at 255."""
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(tmp_path / "deep.png")
    images = ImageFolder(tmp_path, ["deep.png"], (1, 3, 3))
    np.testing.assert_allclose(images[:][0, 0], [[0] * 3, [1] * 3, [255] * 3])


@pytest.mark.parametrize("decode", [False, True])
def test_bad_images(folder, decode):
    """What is no image is found by its beginning; what was cut short when it is decoded."""
    (folder / "empty.jpg").write_bytes(b"")
    Image.fromarray(np.ones((4, 4), np.float32)).save(folder / "float.tiff")
    cut = folder / "flowers/00001.jpg"
    cut.write_bytes(cut.read_bytes()[:-100])
    bad = find_bad_images(folder, find_images(folder), decode=decode)
    assert set(bad) == {"empty.jpg", "float.tiff"} | ({"flowers/00001.jpg"} if decode else set())
    assert bad["empty.jpg"] == "it is no image"
    assert "32 bits" in bad["float.tiff"]


def test_bad_image_in_a_slice(folder):
    """The first image of a slice that can't be read is named."""
    for name in ("flowers/00001.jpg", "flowers/00007.jpg"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-100])
    images = ImageFolder(folder, find_images(folder), (16, 16, 3))
    with pytest.raises(ImageError, match=r"'flowers/00001\.jpg' can't be read: .*[Tt]runcated"):
        images[:]


def test_channels():
    """Inputs that no image is are refused."""
    with pytest.raises(InputError, match="1 channel"):
        ImageFolder(None, [], (8, 8, 2))
