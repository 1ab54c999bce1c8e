"""Runs programs of tests/hostile over the real command and compares how each ended with its header, as a plain user in the
machine of tests/vm. A smaller judge than tests/tests/hostile, which needs the whole workspace: outcome, exit code and signal.

Without names: all of them. What differs for a plain user is said in DIFFERENT, with why.
"""

import json
import os
import socket
import subprocess
import sys
import time

FOLDER = "/payload/hostile"
FLAGS = {
    "--time-limit": "60s",
    "--memory": "256MiB",
    "--disk": "64MiB",
    "--shm": "16MiB",
    "--cpus": "1",
    "--pids": "64",
}
SETTINGS = {
    "SLOTS": "1",
    "LIMITS__DEFAULT__GRACE": "1s",
    "LIMITS__DEFAULT__STDOUT": "2MiB",
    "LIMITS__DEFAULT__STDERR": "2MiB",
    "LIMITS__DEFAULT__METRICS": "2MiB",
}
# Name: the outcomes that are right here too, and why.
DIFFERENT = {
    "memory_page_cache": (["out_of_memory"], "files are on a tmpfs, which is the run's memory and no cache of it"),
    "output_fills_the_disk": (["timed_out"], "what is past a stream's limit is forgotten and fills no disk"),
}
# Name: what a program may call reached, and why it is not.
HARMLESS = {
    "memory_tmpfs": ("REACHED 64 MiB on /work tmpfs", "the volume is one, with the disk limit of 64 MiB as its size"),
    "deceit_cut_logs": ("REACHED no append", "its output is a pipe, to which that flag is nothing; both lines are checked"),
}


def header(name):
    """`#: key = value` lines, which are TOML; what is read here is also JSON."""
    found = {}
    for line in open(f"{FOLDER}/{name}.py", encoding="utf-8"):
        if not line.startswith("#:"):
            break
        key, _, value = line[2:].partition("=")
        try:
            found[key.strip()] = json.loads(value.replace('" = ', '": '))
        except ValueError:
            found[key.strip()] = value.strip()
    return found


def canaries():
    """Things of the host that a program tries to reach, and how to see whether it did."""
    home = os.path.expanduser("~")
    secret = os.path.join(home, "secret")
    with open(secret, "w", encoding="utf-8") as file:
        file.write("canary-of-the-host\n")
    tcp = socket.create_server(("127.0.0.1", 0))
    name = "autoresearch-canary"
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0" + name)
    abstract.listen()
    for listener in (tcp, abstract):
        listener.setblocking(False)
    process = subprocess.Popen(["sleep", "100000"])

    def touched():
        found = []
        for what, listener in (("TCP", tcp), ("abstract", abstract)):
            try:
                listener.accept()[0].close()
                found.append(f"the {what} listener of the host was reached")
            except BlockingIOError:
                pass
        if process.poll() is not None:
            found.append("a process of the host was killed")
        if open(secret, encoding="utf-8").read() != "canary-of-the-host\n":
            found.append("a file of the host was changed")
        return found

    params = {
        "file": secret,
        "tcp_port": tcp.getsockname()[1],
        "abstract": name,
        "pid": process.pid,
        "data_dir": os.path.join(home, ".local/share/autoresearch"),
    }
    return params, touched


def main():
    params, touched = canaries()
    names = sys.argv[1:] or sorted(f[:-3] for f in os.listdir(FOLDER) if f.endswith(".py"))
    wrong = []
    for name in names:
        expected = header(name)
        flags = dict(FLAGS)
        own = expected.get("flags", [])
        flags.update(zip(own[::2], own[1::2]))
        environment = dict(os.environ)
        for key, value in SETTINGS.items():
            environment[f"AUTORESEARCH_WORKER_{key}"] = value
        for key, value in expected.get("worker", {}).items():
            environment[f"AUTORESEARCH_WORKER_{key.upper().replace('.', '__')}"] = str(value)
        environment["MY_SECRET"] = "hidden-from-the-sandbox"
        command = ["/payload/autoresearch", "exec", f"{FOLDER}/{name}.py", "--image", "lite", "--backend", "native"]
        command += ["--params", json.dumps(params), "--output", "json"] + [word for pair in flags.items() for word in pair]
        begun = time.monotonic()
        ran = subprocess.run(command, env=environment, capture_output=True, timeout=600)
        took = time.monotonic() - begun
        try:
            told = json.loads(ran.stdout)
        except ValueError:
            told = {"outcome": f"no answer: {ran.stdout[-500:]!r} {ran.stderr[-500:]!r}"}
        outcomes = [expected.get("outcome")] + DIFFERENT.get(name, ([], ""))[0]
        harmless = HARMLESS.get(name, ("\0", ""))[0]
        bad = []
        if told.get("outcome") not in outcomes:
            bad.append(f"outcome {told.get('outcome')}, expected {outcomes}: {told.get('message', '')}")
        elif told.get("outcome") == outcomes[0]:
            usage, exception = told.get("usage") or {}, told.get("exception") or {}
            for key, got in (
                ("exit", told.get("exit_code")),
                ("signal", told.get("signal")),
                ("limit", told.get("limit")),
                ("exception", exception.get("class")),
                ("stdout_bytes", usage.get("stdout_bytes")),
            ):
                if key in expected and got != expected[key]:
                    bad.append(f"{key} {got}, expected {expected[key]}")
            for key in ("stdout", "stderr", "message"):
                for text in expected.get(key, []):
                    if text not in (told.get(key) or ""):
                        bad.append(f"{key} has no {text!r}")
        said = json.dumps(told).replace(harmless, "")
        if "REACHED" in said or "canary-of-the-host" in said:
            bad.append("it reached something")
        bad += touched()
        logs = ["/payload/autoresearch", "logs", str(told.get("run_id"))]
        logs = subprocess.run(logs, capture_output=True, text=True, errors="replace").stdout
        if "REACHED" in logs.replace(harmless, ""):
            bad.append("it says that it reached something")
        print(f"{'FAIL' if bad else 'ok  '} {name} {told.get('outcome')} {took:.1f} s {'; '.join(bad)}", flush=True)
        if bad:
            print(json.dumps(told)[:1500], flush=True)
            wrong.append(name)
    print(f"{len(names) - len(wrong)} of {len(names)} as their headers say; not: {wrong}")
    sys.exit(1 if wrong else 0)


main()
