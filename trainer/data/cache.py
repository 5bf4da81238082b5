"""What was read from files, remembered by their content, so that an unchanged file is read once."""
import hashlib
import json
import os
import sqlite3
import time
from pathlib import Path

SETTLED = 2  # seconds; a file changed more recently may change again without another modification time (FAT has 2 s)


class Cache:
    """A SQLite file, or memory for as long as the object lives; a context manager.

    It holds nothing that cannot be computed again: where the file cannot be used, memory is.
    """

    def __init__(self, file: Path | None = None):
        self.file = file

    def __enter__(self) -> "Cache":
        try:
            if self.file:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            self._open(self.file or ":memory:")
        except (sqlite3.Error, OSError):  # damaged, locked or not writable
            self._open(":memory:")
        return self

    def _open(self, file: Path | str) -> None:
        self._database = sqlite3.connect(file, timeout=5)
        self._database.execute("CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, state TEXT, digest TEXT)")
        self._database.execute("CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, value TEXT)")

    def __exit__(self, *_) -> None:
        try:
            self._database.commit()
        except sqlite3.Error:
            pass
        self._database.close()

    def digest(self, path: Path) -> str:
        """SHA-256 of the file's content; it is read only when its size or one of its times has changed."""
        now, stat = time.time(), os.stat(path)
        key, state = repr(os.path.abspath(path)), f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
        row = self._row("SELECT state, digest FROM files WHERE path = ?", key)
        if row and row[0] == state:
            return row[1]
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        if now - max(stat.st_mtime, stat.st_ctime) > SETTLED:
            self._write("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (key, state, digest.hexdigest()))
        return digest.hexdigest()

    def get(self, key: str) -> dict | None:
        row = self._row("SELECT value FROM results WHERE key = ?", key)
        return json.loads(row[0]) if row else None

    def put(self, key: str, value: dict) -> None:
        self._write("INSERT OR REPLACE INTO results VALUES (?, ?)", (key, json.dumps(value)))

    def _row(self, query: str, key: str) -> tuple | None:
        try:
            return self._database.execute(query, (key,)).fetchone()
        except sqlite3.Error:  # the file is damaged
            return None

    def _write(self, statement: str, values: tuple) -> None:
        try:
            self._database.execute(statement, values)
        except sqlite3.Error:  # another process writes, or the disk is full: it will be computed again
            pass
