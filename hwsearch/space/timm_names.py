"""The names that timm knows, without importing it.

Importing timm imports torch, which takes seconds; a mistyped backbone must be refused at once. The
names stand in timm's source as ``@register_model`` followed by ``def NAME(``: reading its 119
files takes 0.06 s and gives exactly ``timm.list_models()`` (1371 names in timm 1.0.31).
"""

import functools
import importlib.util
import re
from pathlib import Path

from hwsearch.errors import BackboneError, HostError
from hwsearch.files import nearest

_REGISTERED = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)


@functools.cache
def timm_names() -> frozenset[str]:
    """All model names of the installed timm, without pretrained tags and deprecated names.

    Raises:
        HostError: timm is not installed, or its sources register no model.
    """
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise HostError("timm is not installed; pip install timm")
    models = Path(spec.submodule_search_locations[0]) / "models"
    names = frozenset(
        name
        for path in models.rglob("*.py")
        for name in _REGISTERED.findall(path.read_text(encoding="utf-8"))
    )
    if not names:
        raise HostError(f"timm at {models} registers no model; install timm again")
    return names


def split_tag(name: str) -> tuple[str, str | None]:
    """Split "resnet10t.c3_in1k" into the architecture and its pretrained tag, None without one."""
    architecture, dot, tag = name.partition(".")
    return architecture, tag if dot else None


def check_timm_name(name: str) -> None:
    """Refuse a name whose architecture timm does not know.

    The tag is not looked up: some are computed when timm is imported, so timm itself refuses an
    unknown one when the network is built.

    Raises:
        BackboneError: the name is unknown (with the nearest known one), or its tag is empty.
    """
    architecture, tag = split_tag(name)
    if architecture not in timm_names():
        hint = nearest(architecture, sorted(timm_names()))
        raise BackboneError(
            f"timm has no model '{architecture}'.{hint} "
            "Give a name of timm.list_models(), or your own as package.module:function"
        )
    if tag == "":
        raise BackboneError(f"'{name}' ends in a dot; write {architecture} or {architecture}.TAG")
