"""Every error that hwsearch raises on purpose.

::

    HwsearchError                      exit code
    +-- UserError (also a ValueError)  2   usage or input
    |   +-- UnitError                      a budget or a duration that cannot be read
    |   +-- FileModelError                 a YAML file with mistakes, all of them listed
    |   +-- TargetError                    an unknown target, or one that cannot do what was asked
    |   +-- SpaceError                     a search space that cannot be searched
    |   +-- BackboneError                  a backbone that cannot be built, traced or pruned
    |   +-- DataError                      pictures that are missing, corrupt or too few
    |   +-- RunError                       a run folder that cannot be read, resumed or written
    +-- NothingFitsError               1   no candidate meets the budget
    +-- HostError                      3   this machine or its storage lacks something
    +-- RunLockedError                 4   another process works on the run folder
    +-- TrialsFailedError              5   too many trials failed
    +-- RunInterrupted                 130 stopped by the user; the run can be resumed

The message of each says what was given, what is allowed and what to do next, on one line
(``FileModelError`` has one line for each mistake).
"""


class HwsearchError(Exception):
    """Base of all errors of this package."""

    exit_code: int = 3


class UserError(HwsearchError, ValueError):
    """What the user gave cannot be used."""

    exit_code = 2


class UnitError(UserError):
    """A quantity without a unit, with the wrong unit, or out of range."""


class FileModelError(UserError):
    """A search space or a profile with mistakes; the message has one line for each."""


class TargetError(UserError):
    """The target is unknown or cannot run what was asked."""


class SpaceError(UserError):
    """The search space cannot be searched for this target."""


class BackboneError(UserError):
    """The backbone cannot be built, traced, pruned or quantized."""


class DataError(UserError):
    """The pictures cannot be used."""


class RunError(UserError):
    """The run folder cannot be read, written or resumed."""


class NothingFitsError(HwsearchError):
    """No candidate meets the budget; the message says the least that is reachable."""

    exit_code = 1


class HostError(HwsearchError):
    """This machine lacks something: disk space, a package, the network."""

    exit_code = 3


class RunLockedError(HwsearchError):
    """Another process holds the run folder."""

    exit_code = 4


class TrialsFailedError(HwsearchError):
    """Too many trials failed to go on; the message quotes the last failure."""

    exit_code = 5


class RunInterrupted(HwsearchError):  # noqa: N818 - not an error of the run, the user's wish
    """The user stopped the run; the message says how to resume it."""

    exit_code = 130
