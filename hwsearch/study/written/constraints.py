"""The versions that a run was made with, in pip's constraints format."""

import functools
import re
from importlib.metadata import PackageNotFoundError, distribution


@functools.cache
def constraints_text() -> str:
    """One ``name==version`` a line, sorted: hwsearch and all that is installed of what it needs."""
    versions: dict[str, str] = {}
    waiting = ["hwsearch"]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in versions:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform
        # Without the local part: PyPI has torch 2.14.1 and not the "+cu130" of another index.
        versions[name] = found.version.partition("+")[0]
        waiting += [
            re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            for requirement in found.requires or ()
            if not re.search(r"\bextra\s*==", requirement)
        ]
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))
