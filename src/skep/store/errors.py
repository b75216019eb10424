"""What can be wrong with a database: the operator must act, or it passes."""

from __future__ import annotations

from skep.foundation.errors import SettingError, TryAgainError

__all__ = [
    "DatabaseDamagedError",
    "DatabaseForeignError",
    "DatabaseInUseError",
    "DatabaseNewerError",
    "LibraryTooOldError",
    "NetworkFilesystemError",
    "StoreClosedError",
    "StoreUnavailableError",
]


class DatabaseDamagedError(SettingError):
    """The file is not a whole database. It is never recreated over."""

    code = "store.damaged"


class DatabaseForeignError(SettingError):
    """The schema is not the one that our migrations made."""

    code = "store.foreign_schema"


class DatabaseInUseError(SettingError):
    """Another process has opened it."""

    code = "store.in_use"


class DatabaseNewerError(SettingError):
    """A newer version of the program has written this database."""

    code = "store.newer_schema"


class LibraryTooOldError(SettingError):
    """This SQLite has a corruption race in its write-ahead log."""

    code = "store.old_library"


class NetworkFilesystemError(SettingError):
    """The write-ahead log needs shared memory, which a network filesystem has not."""

    code = "store.network_filesystem"


class StoreUnavailableError(TryAgainError):
    """The disk did not take it. Nothing of the batch is stored; it may be tried again."""

    code = "store.unavailable"


class StoreClosedError(TryAgainError):
    """The store is closed or closing."""

    code = "store.shutting_down"
