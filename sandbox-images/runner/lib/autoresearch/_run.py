"""The run's own facts, read once from `run.json`: parameters, data sets, the time, artifacts.

A child that multiprocessing starts afresh imports this module again, so what it needs travels in two environment
variables that `runner.py` sets, and not in a global.
"""

import json
import os
import time

IN_FOLDER = os.environ.get("AUTORESEARCH_IN", "/in")
WORK_FOLDER = os.environ.get("AUTORESEARCH_WORK") or os.getcwd()
STARTED_NS = int(os.environ.get("AUTORESEARCH_STARTED_NS") or time.monotonic_ns())

# Of a name below artifacts/: the file system's own limit for a part, and a sane one for the whole.
PART_BYTES_MAX = 255
NAME_BYTES_MAX = 512
COPY_BYTES = 1 << 20

with open(os.path.join(IN_FOLDER, "run.json"), encoding="utf-8") as file:
    RUN = json.load(file)

params = RUN.get("params") or {}
smoke = bool(RUN.get("smoke"))


def dataset(name):
    """The path of a data set of this run (a file or a folder, read-only)."""
    datasets = RUN.get("datasets") or {}
    try:
        return datasets[name]
    except (KeyError, TypeError):
        there = ", ".join(sorted(datasets)) or "none"
        raise KeyError(f"this run has no data set {name!r}; it has: {there}") from None


def time_left():
    """Seconds until the run's time limit, never less than 0; infinity where there is no limit."""
    limit = RUN.get("time_limit_ms")
    if not limit:
        return float("inf")
    return max(0.0, limit / 1e3 - (time.monotonic_ns() - STARTED_NS) / 1e9)


def save(name, path=None):
    """Copies the file at `path` (by default `name`, from the current folder) into `artifacts/` as `name`.

    Returns the copy's path. `name` is relative, with `/` between its parts and no `..`.
    """
    name = check_artifact_name(os.fspath(name))
    source = os.path.abspath(name if path is None else os.fspath(path))
    target = os.path.join(WORK_FOLDER, "artifacts", *name.split("/"))
    if os.path.isdir(source):
        raise IsADirectoryError(f"ar.save takes one file, and {source!r} is a folder: save its files one by one")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.realpath(source) == os.path.realpath(target):
        return target
    # Beside artifacts/, so that a run that is killed while it copies leaves no half of a file among them.
    beside = os.path.join(WORK_FOLDER, f".saving-{os.getpid()}")
    try:
        with open(source, "rb") as reader, open(beside, "wb") as writer:
            while piece := reader.read(COPY_BYTES):
                writer.write(piece)
        os.replace(beside, target)
    except BaseException:
        try:
            os.unlink(beside)
        except FileNotFoundError:
            pass
        raise
    return target


def check_artifact_name(name):
    """The name, where it is one that may lie below artifacts/; else ValueError."""
    wrong = ValueError(f"{name!r} is no name for an artifact: it must be a relative path with no `.` or `..`")
    if not isinstance(name, str) or not name or len(name.encode("utf-8", "surrogatepass")) > NAME_BYTES_MAX:
        raise wrong
    if any(not letter.isprintable() or letter == "\\" for letter in name):
        raise wrong
    for part in name.split("/"):
        if part in ("", ".", "..") or len(part.encode("utf-8")) > PART_BYTES_MAX:
            raise wrong
    return name
