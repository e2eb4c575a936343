"""A sweep's folder on the command line: it goes again where the request is rejected."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from results.store import FolderBusy, locked

WRITTEN_BY_HYDRA = {
    False: (".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml"),
    True: ("multirun.yaml",),
}
"""What Hydra leaves in the folder before anybody has looked at the request; True: with -m."""


@contextlib.contextmanager
def unless_rejected(folder: Path, *, multirun: bool) -> Iterator[None]:
    """Keeps ``folder`` only if the block ends well or has left a record; else it takes away what a sweep begins with.

    What else somebody keeps there stays, and all of it where another sweep is writing.
    """
    try:
        yield
    except BaseException:
        with contextlib.suppress(FolderBusy, OSError), locked(folder):  # as far as there is nothing else
            if not any(folder.glob("records/*")):
                for name in WRITTEN_BY_HYDRA[multirun]:
                    (folder / name).unlink(missing_ok=True)
                for place in (folder / "records", folder / ".hydra", folder, *above(folder)):
                    if place.is_dir():
                        place.rmdir()
        raise


def above(folder: Path) -> list[Path]:
    """Folders that only hold those of sweeps, where ``folder`` lies in the default place; the inner one first."""
    return [folder.parent, folder.parent.parent] if folder.parent.parts[-2:] == ("results", "runs") else []
