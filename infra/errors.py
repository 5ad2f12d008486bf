"""Every error that Heliostat raises on purpose.

HeliostatError            exit code 1
├── ConfigError           a spec, an override or an option is wrong; exit code 2
├── DataError             the data cannot be used as the spec says
│   └── DamagedError      a value of a record is damaged; data.missing can leave the record out
├── ModelError            a model is missing or cannot be loaded
│   └── IntegrityError    stored files differ from their manifest
├── StorageError          a file system or bucket refuses or does not answer
│   ├── NotFoundError     no such object
│   ├── AlreadyExistsError  an object that is never overwritten is there
│   └── UnreachableError  a server does not answer
├── ResourceError         too few CPUs or GPUs, a port in use, no cluster
├── TrainingError         a run failed for a reason that the user can act on
│   └── RecordTooLargeError  one record in a pass does not fit in memory
├── JobError              a job on a cluster failed; the exit code of its command
└── StoppedError          Ctrl-C or a signal stopped the command; exit code 128 + the signal's number

Each message is one line that names the key, file or field, its value and what is allowed. The command line
prints it and exits with the code; nothing else catches these, except for deliberate retries.
"""

from signal import SIGTERM


class HeliostatError(Exception):
    """Base of all errors meant for the user: one line, no traceback."""

    exit_code = 1


class ConfigError(HeliostatError):
    """A spec, an override or an option is wrong."""

    exit_code = 2


class DataError(HeliostatError):
    """The data cannot be used as the spec says."""


class DamagedError(DataError):
    """A value of a record, such as an image, is damaged; `data.missing: drop` leaves the record out."""


class ModelError(HeliostatError):
    """A model is missing or cannot be loaded."""


class IntegrityError(ModelError):
    """Stored files differ from their manifest."""


class StorageError(HeliostatError):
    """A file system or bucket refuses or does not answer."""


class NotFoundError(StorageError):
    """No such object."""


class AlreadyExistsError(StorageError):
    """An object that must not be overwritten exists already."""


class UnreachableError(StorageError):
    """A server does not answer; trying again later can help."""


class ResourceError(HeliostatError):
    """Too few CPUs or GPUs, a port in use, or no cluster."""


class TrainingError(HeliostatError):
    """A run failed for a reason that the user can act on."""


class RecordTooLargeError(TrainingError):
    """One record in a pass does not fit in memory."""


class JobError(HeliostatError):
    """A job on a cluster did not succeed; the exit code is that of its command, where it had one.

    A command that signal N ended, whose code is -N, gives 128 + N, as shells do.
    """

    def __init__(self, message: str, exit_code: int | None) -> None:
        super().__init__(message)
        code = exit_code or HeliostatError.exit_code
        self.exit_code = code if code > 0 else 128 - code


class KubernetesError(HeliostatError):
    """A Kubernetes cluster refuses an object, does not run it, or does not answer."""


class StoppedError(HeliostatError):
    """Ctrl-C or a signal stopped the command; a run has stored a checkpoint if the message says so."""

    def __init__(self, message: str, number: int = SIGTERM) -> None:
        super().__init__(message)
        self.exit_code = 128 + number
