"""The repository's public address, and every badge and clone command that carries it."""

import re
import tomllib

from ..files import write_text
from ..paths import ROOT
from .notebooks import find_notebooks


def repository_url() -> str:
    """Return the public address of the repository, the one constant in pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"].rstrip(
        "/"
    )


def retarget_links(text: str, url: str) -> str:
    """Return ``text`` with every badge, clone command and repository field pointing at ``url``; other links stay."""
    slug = url.removeprefix("https://github.com/")
    for pattern, address in (
        (r"(https://colab\.research\.google\.com/github/)[^/\s]+/[^/\s]+(?=/blob/)", slug),
        (r"(https://mybinder\.org/v2/gh/)[^/\s]+/[^/\s]+(?=/main\b)", slug),
        (r'((?:git clone |REPOSITORY = \\?"|repository-code: "))https://[^\s"\\]+', url),
    ):
        text = re.sub(pattern, lambda match, address=address: match[1] + address, text)
    return text


def carry_address() -> None:
    """Write the repository's address into every file that carries it."""
    for path in [ROOT / "README.md", ROOT / "CITATION.cff", *find_notebooks()]:
        write_text(path, retarget_links(path.read_text(encoding="utf-8"), repository_url()))
