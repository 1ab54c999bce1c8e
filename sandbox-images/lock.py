#!/usr/bin/env python3
"""Writes an image's requirements.lock from its requirements.in: every package that comes in, with its hash.

    python3.11 sandbox-images/lock.py lite torch

Run it with Python 3.11 on Linux x86-64 with glibc, which is what Debian 12 has, because the lock names the one wheel
that pip picks there. pip's own resolver does the work; its report is only written down. Review the difference.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(__file__).resolve().parent


def lock(image):
    wanted = FOLDER / image / "requirements.in"
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
            "--only-binary=:all:", "--report", report.name, "--requirement", str(wanted),
        ]
        subprocess.run(command, check=True)
        return write_down(json.load(report))


def write_down(report):
    lines = []
    for package in report["install"]:
        name = package["metadata"]["name"].lower().replace("_", "-").replace(".", "-")
        digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{name}=={package['metadata']['version']} \\\n    --hash=sha256:{digest}\n")
    return "".join(sorted(lines))


def main():
    if sys.version_info[:2] != (3, 11):
        sys.exit("lock.py wants Python 3.11: the lock names the wheels for Debian 12's Python")
    for image in sys.argv[1:] or sys.exit("name the images to lock: lite torch"):
        (FOLDER / image / "requirements.lock").write_text(lock(image), encoding="utf-8")


if __name__ == "__main__":
    main()
