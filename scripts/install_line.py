"""Keep the place that pip installs ctenrich from the same in all pages and notebooks.

python scripts/install_line.py check        exit code 1 if a page has another place than pyproject.toml
python scripts/install_line.py write        writes the place of pyproject.toml into all pages
python scripts/install_line.py write TAG    the same for a release: changes the tag in pyproject.toml first

The place is ``source`` and ``tag`` in [tool.ctenrich] of pyproject.toml. Once the package is on the index, an empty
``source`` makes every line a plain ``pip install "ctenrich[...]"``.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENT = re.compile(r"(?P<quote>(?:\\?\"|'))(?P<name>ctenrich(?:\[[a-z,]+\])?)(?P<place> @ [^\"'\\]+)?(?P=quote)")
"""The package as an argument of ``pip install``, in a page or in the JSON of a notebook."""
COMMAND = re.compile(r"pip install [^\n`]*?ctenrich\b[^\n`]*")


def place() -> str:
    """`` @ git+URL@TAG``, or nothing where the index has the package."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["ctenrich"]
    return f" @ {table['source']}@{table['tag']}" if table["source"] else ""


def pages(root: Path = ROOT) -> list[Path]:
    """Pages and notebooks that may have an install line."""
    docs = root / "docs"
    found = [root / "README.md", *docs.glob("*.md"), *docs.glob("recipes/*"), *root.glob("notebooks/*.ipynb")]
    return sorted(path for path in found if path.is_file())


def corrected(text: str, where: str) -> str:
    """The text with this place in each install line."""
    return COMMAND.sub(lambda command: REQUIREMENT.sub(rf"\g<quote>\g<name>{where}\g<quote>", command[0]), text)


def wrong_lines(text: str, where: str) -> list[str]:
    """Install lines of a text that name another place, or whose requirement is not quoted."""
    found = []
    for command in COMMAND.findall(text):
        requirement = REQUIREMENT.search(command)
        if requirement is None or (requirement["place"] or "") != where:
            found.append(command)
    return found


def main(arguments: list[str]) -> int:
    """Check or write."""
    match arguments:
        case ["check"]:
            wrong = {path: wrong_lines(path.read_text("utf-8"), place()) for path in pages()}
            for path, lines in wrong.items():
                print(*(f"{path.relative_to(ROOT)}: {line}" for line in lines), sep="\n", end="\n" if lines else "")
            return int(any(wrong.values()))
        case ["write", *tag] if len(tag) < 2:
            project = ROOT / "pyproject.toml"
            for name in tag:
                text = re.sub(r'(?m)^tag = ".*"$', f'tag = "{name}"', project.read_text("utf-8"))
                project.write_text(text, "utf-8")
            for path in pages():
                path.write_text(corrected(path.read_text("utf-8"), place()), "utf-8")
            return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
