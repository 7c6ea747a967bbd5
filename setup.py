"""What `pyproject.toml` cannot say: links of the README that lead to the repository."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent


def with_absolute_links(text: str, repository: str) -> str:
    """The text with links to files of the repository as addresses, which the index needs."""
    return re.sub(r"\]\((?!https?:|#)", f"]({repository}/blob/main/", text)


def main() -> None:
    """Builds with the repository's address, or without addresses while there is none."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    repository = settings["tool"]["kerasext"]["repository"].rstrip("/")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    setup(
        long_description=with_absolute_links(readme, repository) if repository else readme,
        long_description_content_type="text/markdown",
        project_urls={
            "Repository": repository,
            "Changelog": f"{repository}/blob/main/CHANGELOG.md",
        }
        if repository
        else {},
    )


if __name__ == "__main__":
    main()
