import inspect
import re

from hwsearch import errors
from hwsearch.errors import HwsearchError

CLASSES = {
    name: item
    for name, item in vars(errors).items()
    if inspect.isclass(item) and issubclass(item, HwsearchError)
}


def drawn() -> dict[str, tuple[str | None, int | None]]:
    """Parent and exit code of each class in the tree of the module's docstring."""
    found: dict[str, tuple[str | None, int | None]] = {}
    above: list[tuple[int, str]] = []
    assert errors.__doc__ is not None
    for line in errors.__doc__.splitlines():
        match = re.fullmatch(r"    ([ |+-]*)([A-Z]\w+)(?: \(also a ValueError\))? +(\d+)?.*", line)
        if match is None:
            continue
        depth = len(match[1])
        above = [(at, name) for at, name in above if at < depth]
        code = int(match[3]) if match[3] else None
        found[match[2]] = (above[-1][1] if above else None, code)
        above.append((depth, match[2]))
    return found


def test_tree_when_drawn_is_the_real_one() -> None:
    tree = drawn()
    assert set(tree) == set(CLASSES)
    for name, (parent, code) in tree.items():
        error = CLASSES[name]
        assert error.__bases__[0].__name__ == (parent or "Exception")
        if code is not None:
            assert error.exit_code == code
        elif parent == "UserError":
            assert error.exit_code == 2
