"""Whether wheel and sdist hold what they should, and no more: `python tests/check_dist.py build/dist`."""

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE_ONLY = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "PKG-INFO", ".gitignore"}


def package_files():
    """Files of the package here, without what Python leaves behind."""
    files = (path for path in (ROOT / "lrc_tl").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(ROOT)) for path in files}


def flaws(folder):
    """What is wrong with the one wheel and the one sdist in a folder, one line each."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    in_wheel = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    with tarfile.open(sdist) as archive:
        in_sdist = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    wanted = package_files()
    metadata = {name for name in in_wheel if ".dist-info/" in name}
    found = [f"the wheel lacks {name}" for name in sorted(wanted - in_wheel)]
    found += [f"the wheel holds {name}" for name in sorted(in_wheel - wanted - metadata)]
    found += [f"the sdist lacks {name}" for name in sorted((wanted | SOURCE_ONLY) - in_sdist)]
    found += [f"the sdist holds {name}" for name in sorted(in_sdist - wanted - SOURCE_ONLY)]
    if not any(name.endswith("licenses/LICENSE") for name in metadata):
        found.append("the wheel lacks its licence")
    return found


def main():
    found = flaws(Path(sys.argv[1]))
    print("\n".join(found) or "wheel and sdist hold the package, its data, types and licence, and nothing else")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
