import h5py
import pytest

from kerasext.storage.format import links


def test_find(tmp_path):
    """What lies at a path is found, unless another kind of link is on the way to it."""
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other.create_dataset("g/x", data=1)
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.create_dataset("g/x", data=2)
        file["soft"] = h5py.SoftLink("/g")
        file["external"] = h5py.ExternalLink(tmp_path / "other.h5", "/g")
        assert links.find(file, "g/x")[()] == 2
        assert isinstance(links.find(file, "g"), h5py.Group)
        for path in ("soft/x", "soft", "g/y", "nothing/x", "g/x/y"):
            assert links.find(file, path) is None
        for path in ("external/x", "external"):
            with pytest.raises(ValueError, match="link to another file"):
                links.find(file, path)
