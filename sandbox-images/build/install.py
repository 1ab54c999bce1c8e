"""Installs an image's locked packages, with the settings of the machine that builds it and without keeping any.

Run by a Dockerfile, in one RUN. Where the user is, pip may need a proxy, an index of the house, or the certificate
of a firewall that opens TLS. The worker offers these settings for the time of the build on a loopback address at a
path that nobody guesses, and gives that address as FTP_PROXY: one of the few build arguments that Docker neither
keeps in the image's history nor takes into the layer cache's key (a fresh address each time must not mean fresh
layers), and one that neither pip nor apt has a use for. Settings are files in memory and variables of one process,
and both are gone when this program ends, before the layer is made.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request

PYTHON = "/usr/bin/python3"
LOCK = "/opt/autoresearch/build/requirements.lock"
SETTINGS_TIMEOUT_SECONDS = 10
# scikit-learn carries small data sets with all their labels, which a program could read instead of learning.
BUNDLED_DATA = "/usr/local/lib/python3.11/dist-packages/sklearn/datasets/data"


def settings():
    """What the worker offers: environment variables and files; nothing where this is built by hand."""
    address = os.environ.get("FTP_PROXY", "")
    if not address.startswith("http://127.0.0.1:"):
        return {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=SETTINGS_TIMEOUT_SECONDS) as answer:
            return json.load(answer)
    except (OSError, ValueError) as error:
        # An engine on another machine has another loopback: pip may still reach its index without the settings.
        print(f"the builder's settings are out of reach ({error}); going on without them", flush=True)
        return {}


def environment(found, folder):
    """The environment for pip. `files` are written below the folder and `variables` may name it as {folder}."""
    for name, text in (found.get("files") or {}).items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    variables = {key: value for key, value in os.environ.items() if key.lower() != "ftp_proxy"}
    variables |= {key: value.replace("{folder}", folder) for key, value in (found.get("variables") or {}).items()}
    # Last, because a pip.conf of the house may say otherwise for its own people.
    return variables | {
        "PIP_NO_CACHE_DIR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1",
        "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0",
    }


def run(*command, env):
    done = subprocess.run(command, env=env, check=False)
    if done.returncode:
        sys.exit(f"`{' '.join(command[:4])} …` ended with {done.returncode}")


def main():
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as folder, tempfile.TemporaryDirectory() as tools:
        env = environment(settings(), folder)
        # Debian's python3-venv brings pip without bringing it into the image's own Python.
        run(PYTHON, "-m", "venv", tools, env=env)
        # --no-deps: the lock file is the whole list, and what is not in it with a hash does not come in.
        run(
            f"{tools}/bin/pip", "--python", PYTHON, "install", "--break-system-packages", "--root-user-action=ignore",
            "--progress-bar=off", "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", LOCK, env=env,
        )
    for place, _, names in os.walk(BUNDLED_DATA):
        for name in names:
            if not name.endswith(".py"):
                os.unlink(os.path.join(place, name))
    for leftover in ("/root/.cache", "/root/.config"):
        shutil.rmtree(leftover, ignore_errors=True)


if __name__ == "__main__":
    main()
