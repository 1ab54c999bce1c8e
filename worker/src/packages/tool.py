"""Resolves and fetches packages with pip, inside the run's own image and before the run. Wheels only: no code of a
package runs here. Nothing comes from the command line but what to do; the rest lies in the folder that is shared with
the worker: `request.json` and `lock.txt` from it, `answer.json` and `site/` for it.

    python3 -I -c TOOL resolve|fetch FOLDER
"""

import glob
import importlib.metadata
import json
import os
import re
import subprocess
import sys

WORDS_MAX = 3000
# pip's own advice and progress say nothing to whoever asked for a package.
NOISE = re.compile(
    r"^\s*(Collecting |Downloading |Using cached |Requirement already |Saved |Installing collected |Looking in |"
    r"Would install |Preparing metadata|Obtaining |\[notice\]|ERROR: ResolutionImpossible|INFO: pip is looking|"
    r"INFO: This is taking longer|WARNING: (Running pip as|You are using pip|The directory|Target directory)|[━╸╺ ]+$)"
)
ADVICE = "To fix this you could try to"
NOT_FOUND = re.compile(r"No matching distribution found for ([^\s<>=!~\[;(]+)")
CONNECTION = re.compile(
    r"connection broken by|Could not fetch URL|Max retries exceeded|Read timed out|ConnectTimeout|ConnectionResetError|"
    r"NewConnectionError|certificate verify failed|Temporary failure in name resolution|ProxyError|HTTP error 5\d\d"
)
NO_SPACE = re.compile(r"No space left on device|\[Errno 28\]|Disk quota exceeded|\[Errno 122\]")
# Every index has it, so one that has not got it is out of reach.
ALWAYS_THERE = "pip"


def pip_path():
    """The pip that Debian brings along as a wheel, which runs without being installed."""
    import ensurepip

    found = sorted(glob.glob("/usr/share/python-wheels/pip-*.whl"))
    found += sorted(glob.glob(os.path.join(os.path.dirname(ensurepip.__file__), "_bundled", "pip-*.whl")))
    if not found:
        raise FileNotFoundError("the image has no pip: python3-venv is not installed in it")
    return os.path.join(found[0], "pip")


def pip(folder, *arguments):
    """The exit code and everything that pip printed."""
    temporary = os.path.join(folder, "tmp")
    os.makedirs(temporary, exist_ok=True)
    env = dict(os.environ)
    # Last, because a pip.conf of the house may say otherwise for its own people.
    env |= {
        "TMPDIR": temporary, "HOME": env.get("HOME") or temporary, "PIP_CACHE_DIR": os.path.join(folder, "cache"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_PROGRESS_BAR": "off", "PIP_NO_COLOR": "1", "PIP_ROOT_USER_ACTION": "ignore",
        "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        [sys.executable, "-I", pip_path(), *arguments],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")


def words_of(text):
    """pip's own words, less what is noise."""
    lines = []
    for line in text.splitlines():
        if line.startswith(ADVICE):
            break
        if line.strip() and not NOISE.match(line):
            lines.append(line.rstrip())
    kept = "\n".join(lines)
    return kept if len(kept) <= WORDS_MAX else f"{kept[:WORDS_MAX // 2]}\n[…]\n{kept[-WORDS_MAX // 2:]}"


def why(folder, text, asked, installed):
    """What kind of failure it is, in words that help whoever chose the packages."""
    if NO_SPACE.search(text):
        return {"kind": "no_space", "words": words_of(text)}
    missing = NOT_FOUND.search(text)
    words = words_of(text)
    nothing = "(from versions: none)" in text
    if (CONNECTION.search(text) and not missing) or nothing or not missing and "conflict" not in text:
        # A name that is not there, one that has only a source form, and an index that does not answer look the same.
        if nothing and missing:
            code, found = pip(folder, "index", "versions", missing[1])
            if code == 0:
                versions = next((line for line in found.splitlines() if line.startswith("Available versions:")), "")
                note = f"{missing[1]} is on the index, but not as a wheel for this Python, and nothing is built from source."
                return {"kind": "conflict", "words": f"{words}\n{note} {versions[:300]}".rstrip()}
        code, found = pip(folder, "index", "versions", ALWAYS_THERE)
        if code != 0:
            return {"kind": "unreachable", "words": words_of(found) or words}
        if nothing and missing:
            words += f"\nNo package of the name {missing[1]} is on the index."
    named = {normal(re.match(r"[A-Za-z0-9._-]*", requirement)[0]) for requirement in asked}
    # Also what only the resolver named.
    named |= {normal(name) for name in re.findall(r"\(constraint\) ([A-Za-z0-9._-]+?)==", text)}
    fixed = sorted(f"{name} {version}" for name, version in installed.items() if name in named)
    if fixed:
        words += f"\nThe image has these already and they are not replaced: {', '.join(fixed)}."
    return {"kind": "conflict", "words": words}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_packages():
    found = {}
    for package in importlib.metadata.distributions():
        name = package.metadata["Name"]
        if name:
            found.setdefault(normal(name), package.version)
    return found


def resolve(folder):
    with open(os.path.join(folder, "request.json"), encoding="utf-8") as file:
        asked = json.load(file)["requirements"]
    installed = installed_packages()
    constraints, report = os.path.join(folder, "constraints.txt"), os.path.join(folder, "report.json")
    with open(constraints, "w", encoding="utf-8") as file:
        file.writelines(f"{name}=={version}\n" for name, version in sorted(installed.items()))
    code, text = pip(
        folder, "install", "--dry-run", "--only-binary=:all:", "--constraint", constraints, "--report", report, "--", *asked
    )
    if code:
        return why(folder, text, asked, installed)
    with open(report, encoding="utf-8") as file:
        found = json.load(file)["install"]
    packages = []
    for package in found:
        archive = package["download_info"].get("archive_info") or {}
        digest = (archive.get("hashes") or {}).get("sha256", "")
        if not digest and archive.get("hash", "").startswith("sha256="):
            digest = archive["hash"].removeprefix("sha256=")
        metadata = package["metadata"]
        packages.append({"name": normal(metadata["name"]), "version": metadata["version"], "sha256": digest})
    return {"kind": "ok", "packages": packages}


def fetch(folder):
    lock, site = os.path.join(folder, "lock.txt"), os.path.join(folder, "site")
    code, text = pip(
        folder, "install", "--no-deps", "--require-hashes", "--only-binary=:all:", "--target", site, "--requirement", lock
    )
    return why(folder, text, [], {}) if code else {"kind": "ok", "packages": []}


def main():
    what, folder = sys.argv[1:]
    os.umask(0o022)
    answer = {"resolve": resolve, "fetch": fetch}[what](folder)
    with open(os.path.join(folder, "answer.json"), "w", encoding="utf-8") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main()
