import io
import os

import keras
import numpy as np
import pytest
from PIL import Image

from kerasext.inference import ImageFolder, UnreadableImageError
from kerasext.inference.image_pixels import opened_image, pixels_of, resized


def plainly_resized(pixels, height, width):
    """The same in the plainest way: every pixel of both axes is computed."""
    for axis, length in enumerate((height, width)):
        given = pixels.shape[axis]
        place = (np.arange(length, dtype=np.float32) + 0.5) * np.float32(given / length) - 0.5
        before = np.floor(place)
        share = (place - before).reshape(-1, *[1] * (2 - axis))
        first, second = (
            np.take(pixels, np.clip(at, 0, given - 1).astype(int), axis).astype(np.float32)
            for at in (before, before + 1)
        )
        pixels = first + (second - first) * share
    return pixels


def noise(*shape):
    """Random pixels."""
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


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
    images = ImageFolder(tmp_path, image_size=size, color_mode=mode)
    expected = np.concatenate([batch.numpy() for batch in dataset])
    assert images.shape == expected.shape
    np.testing.assert_allclose(images[:], expected, atol=1e-3)


@pytest.mark.parametrize("size", [(7, 5), (7, 11), (3, 5), (9, 40), (40, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("given", [(7, 5), (40, 90), (1, 1), (8, 3)])
def test_resized(given, size):
    """Shortcuts for an axis that keeps its length, or loses most of it, change no bit."""
    for pixels in (noise(*given, 3), noise(*given, 1).astype(np.float32) / 257):
        np.testing.assert_array_equal(resized(pixels, *size), plainly_resized(pixels, *size))


def saved(image, kind, **options):
    """The bytes of an image in a format."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def decode(tmp_path):
    """Reads bytes as an image, from a file."""

    def read(data, channels=3):
        (tmp_path / "image.jpg").write_bytes(data)  # only the content tells the format
        with opened_image(str(tmp_path / "image.jpg")) as image:
            return pixels_of(image, channels)

    return read


def decode_plainly(data, mode="RGB"):
    """The same with Pillow's `open`, which is slower."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert(mode))
    return pixels if pixels.ndim == 3 else pixels[..., None]


EXIF = Image.Exif()
EXIF[0x0112] = 6
EXIF[0x010E] = "a text with a marker: \xff\xc0" * 20


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [
        {"quality": 30},
        {"quality": 100, "subsampling": 0},
        {"subsampling": 1, "exif": EXIF},
        {"subsampling": 2, "progressive": True, "comment": b"\xff\xc0\xff\xda"},
        {"optimize": True, "restart_marker_blocks": 1},
        {"keep_rgb": True},
    ],
    ids="-".join,
)
def test_jpeg(decode, mode, channels, options):
    """A small JPEG has the pixels of `PIL.Image.open`, without rotation by Exif."""
    if mode != "RGB" and "keep_rgb" in options:
        pytest.skip("for RGB only")
    image = Image.fromarray(noise(50, 77, 3)).resize((154, 100)).convert(mode)
    data = saved(image, "JPEG", **options)
    expected = decode_plainly(data, {1: "L", 3: "RGB", 4: "RGBA"}[channels])
    np.testing.assert_array_equal(decode(data, channels), expected)


def test_small_jpeg_is_decoded_at_once(decode, monkeypatch):
    """A small JPEG does without Pillow's slow parser; a large one and other formats need it."""
    opened = []
    original = Image.open
    monkeypatch.setattr(
        Image, "open", lambda file, **options: opened.append(file) or original(file, **options)
    )
    small, large = Image.new("RGB", (64, 48)), Image.new("RGB", (2048, 1024))
    assert decode(saved(small, "JPEG")).shape == (48, 64, 3)
    assert not opened
    noisy = saved(Image.fromarray(noise(400, 400, 3)), "JPEG", quality=100)  # many bytes
    others = [saved(large, "JPEG"), saved(small.convert("CMYK"), "JPEG"), saved(small, "PNG")]
    for number, data in enumerate([*others, noisy]):
        decode(data)
        assert len(opened) == number + 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_each_file_is_opened_once(tmp_path, monkeypatch, kind):
    """Opening a file takes as long as decoding a small image, and longer on a network."""
    for number in range(5):
        Image.fromarray(noise(20, 30, 3)).save(tmp_path / f"{number}.png", kind)
    images = ImageFolder(tmp_path, image_size=(20, 30))
    opened = []
    original = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *flags: opened.append(path) or original(path, *flags)
    )
    images[:]
    assert sorted(opened) == [str(tmp_path / path) for path in images.paths]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_every_byte_may_be_missing(decode, kind):
    """A file that was cut anywhere raises Pillow's error, or has the pixels of `PIL.Image.open`."""
    whole = saved(Image.fromarray(noise(20, 30, 3)), kind)
    for length in range(0, len(whole), 7):
        try:
            expected = decode_plainly(whole[:length])
        except Exception as error:  # noqa: BLE001 - of many kinds
            with pytest.raises(type(error)):
                decode(whole[:length])
        else:
            np.testing.assert_array_equal(decode(whole[:length]), expected)


def test_damaged_jpeg(decode):
    """A JPEG with a wrong byte anywhere has the pixels of `PIL.Image.open`, or no pixels."""
    whole = saved(Image.fromarray(noise(20, 30, 3)), "JPEG")
    random = np.random.default_rng(0)
    for _ in range(500):
        data = bytearray(whole)
        data[random.integers(2, len(data))] = random.integers(0, 256)
        try:
            found, expected = decode(data), decode_plainly(data)
        except (OSError, SyntaxError, ValueError, KeyError, IndexError):
            continue  # Pillow's parser refuses more than its decoder
        np.testing.assert_array_equal(found, expected)


def test_sixteen_bits(tmp_path):
    """16 bits become 0 to 255, not cut off at 255."""
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(tmp_path / "deep.png")
    np.testing.assert_allclose(ImageFolder(tmp_path)[:][0, 0], [[0] * 3, [1] * 3, [255] * 3])


def test_first_frame(tmp_path):
    """Of several frames the first one is read."""
    frames = [Image.new("L", (4, 4), value) for value in (10, 20, 30)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert (ImageFolder(tmp_path, color_mode="grayscale")[:] == 10).all()


def test_transparent_images(tmp_path):
    """Of an image with alpha the colours are read, or alpha too."""
    Image.new("RGBA", (4, 4), (10, 20, 30, 40)).save(tmp_path / "clear.png")
    for mode, expected in (("rgb", [10, 20, 30]), ("rgba", [10, 20, 30, 40])):
        assert (ImageFolder(tmp_path, color_mode=mode)[:] == expected).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bits(decode, mode):
    """Pixels of 32 bits, whose range nobody knows, are refused."""
    with pytest.raises(ValueError, match="32 bits"):
        decode(saved(Image.new(mode, (4, 4)), "TIFF"))


def test_huge_image(decode, monkeypatch):
    """Pillow's limit of pixels, which protects the memory, holds."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1 << 20)
    for kind in ("PNG", "JPEG"):
        data = saved(Image.new("L", (2048, 2048)), kind)
        with pytest.raises(Image.DecompressionBombError):
            decode(data)


def test_formats_that_start_programs(decode):
    """PostScript, for which Pillow starts another program, is not opened whatever its name is."""
    with pytest.raises(OSError, match="cannot identify"):
        decode(saved(Image.new("RGB", (4, 4)), "EPS"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="nothing has named pipes")
def test_named_pipe(tmp_path):
    """A named pipe is no image; waiting for what comes out of it would take for ever."""
    os.mkfifo(tmp_path / "pipe.jpg")
    images = ImageFolder(tmp_path, image_size=(8, 8))
    with pytest.raises(UnreadableImageError, match=r"pipe\.jpg"):
        images[:]
