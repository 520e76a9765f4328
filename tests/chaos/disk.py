"""A disk with little room under PostgreSQL: real where root may mount one, else told by triggers.

Real: the whole cluster is moved to a small file system in memory while the server is down, and a
ballast file takes up what room is left. Told: triggers refuse each change of a delivery with
SQLSTATE 53100, as the server itself does when an extension of a file fails.
"""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tests.stories.house import House, until

ROOM = "700m"
_TABLES = ("delivery", "attempt", "batch")


class Disk(Protocol):
    """What can be done to a disk."""

    kind: str

    def fill(self) -> None:
        """No room is left."""
        ...

    def make_room(self) -> None:
        """There is room again."""
        ...


class SmallDisk:
    """The cluster's own file system of limited size."""

    kind = "real"

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with self._ballast.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while file.write(b"\0" * size) == size:
                        pass

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)


class ToldDisk:
    """A server that refuses as it does without room."""

    kind = "told"

    def __init__(self, house: House) -> None:
        self._house = house
        house.sql(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
        )

    def fill(self) -> None:
        for table in _TABLES:
            self._house.sql(
                f"CREATE TRIGGER no_room BEFORE INSERT OR UPDATE ON {table}"
                " FOR EACH STATEMENT EXECUTE FUNCTION no_room()"
            )

    def make_room(self) -> None:
        for table in _TABLES:
            self._house.sql(f"DROP TRIGGER IF EXISTS no_room ON {table}")


@contextmanager
def small_disk(house: House) -> Iterator[Disk]:
    """A disk under the house's database that can be filled."""
    home = _home(house)
    if home is None:
        yield ToldDisk(house)
        return
    cluster, aside = home / "cluster", home / "cluster.aside"
    with house.without_database():
        until(lambda: not _at_work(cluster), what="the end of PostgreSQL")
        cluster.rename(aside)
        cluster.mkdir(mode=0o700)
        _mount(cluster)
        shutil.copytree(aside, cluster, dirs_exist_ok=True)
        for path in (cluster, *cluster.rglob("*")):
            found = (aside / path.relative_to(cluster)).lstat()
            os.chown(path, found.st_uid, found.st_gid, follow_symlinks=False)
        cluster.chmod(0o700)
    disk = SmallDisk(cluster)
    try:
        yield disk
    finally:
        disk.make_room()
        # Detached at once, and gone with the server that still works on it.
        subprocess.run(["umount", "--lazy", str(cluster)], check=True)
        shutil.rmtree(aside)


def _home(house: House) -> Path | None:
    """Where root's cluster is, if a file system can be mounted there."""
    pointer = house.folder / "postgres.json"
    if os.geteuid() != 0 or not pointer.exists() or shutil.which("mount") is None:
        return None
    home = Path(json.loads(pointer.read_text())["home"])
    trial = home / "trial"
    trial.mkdir()
    try:
        _mount(trial)
    except subprocess.CalledProcessError:
        return None
    else:
        subprocess.run(["umount", str(trial)], check=True)
    finally:
        trial.rmdir()
    return home


def _mount(folder: Path) -> None:
    argv = ["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=700", "tmpfs", str(folder)]
    subprocess.run(argv, check=True, capture_output=True)


def _at_work(cluster: Path) -> bool:
    """Whether a process has the cluster for its working directory."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if (process / "cwd").readlink() == cluster:
                    return True
    return False
