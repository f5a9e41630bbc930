from importlib.metadata import version

from packaging.requirements import Requirement

from hwsearch.study.written.constraints import constraints_text


def test_constraints_hold_what_is_installed_and_needed() -> None:
    pins = [Requirement(line) for line in constraints_text().splitlines()]
    assert all(version(pin.name) in pin.specifier for pin in pins)
    names = [pin.name for pin in pins]
    assert names == sorted(set(names))
    assert {"hwsearch", "torch", "torch-pruning", "pydantic-core"} <= set(names)
    assert not {"pytest", "ruff"} & set(names), "what only tests need is left out"
    assert not any(part in text for text in map(str, pins) for part in "+;[ ")
