"""Runs one program in a sandbox: its first process, never PID 1.

    /usr/bin/python3 -sP /opt/autoresearch/runner.py

Descriptors: 0 empty, 1 and 2 the logs, 3 the metrics, all opened by PID 1 for appending. Current folder: the run's
own `work/`. `/in/run.json` says what to run; the program and its files lie in `/in/files/`, packages that the run asked
for in `/packages`. Three environment variables move these for tests: AUTORESEARCH_IN, AUTORESEARCH_WORK and
AUTORESEARCH_PACKAGES.

The program is `__main__`, as if Python had been given its path: same argv, exit codes, SystemExit, atexit, threads
that are waited for. A traceback shows the program's frames and none of ours, and ends with the exception, which is
what the worker reads. `-sP` and not `-I`, because isolated mode ignores PYTHONHASHSEED, and without that the order
of sets differs from run to run.
"""

import os
import sys
import time

STARTED_NS = time.monotonic_ns()
HOME = os.path.dirname(os.path.abspath(__file__))
METRICS_DESCRIPTOR = 3
SPARE_DESCRIPTOR_MIN = 500
# Longer tracebacks lose their middle: the worker always keeps the last 64 KiB of a stream.
TRACEBACK_HEAD = 8 << 10
TRACEBACK_TAIL = 40 << 10
# EX_CONFIG of sysexits.h: what we were given cannot be run, which is no fault of the program's.
EXIT_BAD_INPUT = 78


def main():
    os.environ.setdefault("AUTORESEARCH_IN", "/in")
    os.environ.setdefault("AUTORESEARCH_WORK", os.getcwd())
    os.environ["AUTORESEARCH_STARTED_NS"] = str(STARTED_NS)
    try:
        channel = os.fstat(METRICS_DESCRIPTOR)
        os.environ["AUTORESEARCH_METRICS"] = f"{channel.st_dev}:{channel.st_ino}"
    except OSError:
        os.environ.pop("AUTORESEARCH_METRICS", None)

    files = os.path.join(os.environ["AUTORESEARCH_IN"], "files")
    # The program's folder first, as Python does it; ours last but imported below, so no file of the program can
    # take the place of `autoresearch`. In sys.path for processes that multiprocessing starts afresh.
    sys.path.insert(0, files)
    sys.path.append(os.path.join(HOME, "lib"))
    # Behind everything: a package takes the place neither of what the image has nor, in a process that is started
    # afresh, of `autoresearch`. There is a package of every name.
    packages = os.environ.get("AUTORESEARCH_PACKAGES", "/packages")
    if os.path.isdir(packages):
        sys.path.append(packages)
    errors = spare_descriptor(2)
    try:
        run, streams = load(sys.path)
        name = run["program"]
        if not isinstance(name, str) or name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"`program` must be a path below {files}, not {name!r}")
        path = os.path.join(files, name)
        with open(path, "rb") as file:
            source = file.read()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        write_all(errors, f"runner: cannot run what lies in {files}: {type(error).__name__}: {error}\n")
        return EXIT_BAD_INPUT

    sys.argv = [path]
    prepare_streams()
    streams.install()
    return run_main(path, source, errors)


def load(path):
    """The run's description and our module, imported while the program's folder cannot shadow it."""
    first = path.pop(0)
    try:
        import autoresearch
        from autoresearch import _run, _streams
    finally:
        path.insert(0, first)
    assert autoresearch.params is _run.params
    if not isinstance(_run.RUN, dict):
        raise ValueError("run.json holds no object")
    return _run.RUN, _streams


def run_main(path, source, errors):
    """Runs the program as `__main__` and returns the exit code."""
    module = type(sys)("__main__")
    module.__file__ = path
    module.__builtins__ = __builtins__
    module.__dict__["__annotations__"] = {}
    sys.modules["__main__"] = module
    try:
        code = compile(source, path, "exec", dont_inherit=True)
        exec(code, module.__dict__)
    except SystemExit as stop:
        return exit_code(stop.code, errors)
    except BaseException as error:  # whatever a program may raise
        report(error, errors)
        if isinstance(error, KeyboardInterrupt):
            die_of_interrupt()
        return 1
    return 0


def exit_code(code, errors):
    """Of `sys.exit(code)`, by Python's own rule."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    flush_streams()
    write_all(errors, f"{code}\n")
    return 1


def report(error, errors):
    """Prints the traceback as Python would, without our frames, even where the program broke `sys.stderr`."""
    flush_streams()
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    error.__traceback__ = trace
    if sys.excepthook is not sys.__excepthook__:
        try:
            sys.excepthook(type(error), error, trace)
            flush_streams()
            return
        except BaseException as other:  # a hook of the program's that fails must not hide the first error
            write_all(errors, f"Error in sys.excepthook: {type(other).__name__}\n")
    write_all(errors, describe(error))


def describe(error):
    """The text of a traceback, with its middle cut where it is long."""
    import traceback

    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # an exception whose own __str__ raises, or a stack too deep to be read
        text = f"{type(error).__module__}.{type(error).__qualname__}: <its text could not be made>\n"
    if len(text) > TRACEBACK_HEAD + TRACEBACK_TAIL:
        cut = len(text) - TRACEBACK_HEAD - TRACEBACK_TAIL
        text = f"{text[:TRACEBACK_HEAD]}\n  [{cut} characters left out]\n{text[-TRACEBACK_TAIL:]}"
    return text


def prepare_streams():
    """A line is in the log when it is printed, not when 8 KiB are full: a run that is killed loses none. No text
    can fail to be encoded."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)


def flush_streams():
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (OSError, ValueError):
            pass  # closed, or on a full disk: the traceback still goes to the spare descriptor
        except AttributeError:
            # No stream at all. Python would fail to flush it at the end and change the exit code to 120.
            setattr(sys, name, None)


def spare_descriptor(descriptor):
    """A copy that a program does not close by number, or the descriptor itself where there is none."""
    import fcntl

    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, SPARE_DESCRIPTOR_MIN)
    except OSError:
        return descriptor


def write_all(descriptor, text):
    data = text.encode("utf-8", "backslashreplace")
    for target in (descriptor, 2):
        try:
            while data:
                data = data[os.write(target, data):]
            return
        except OSError:
            continue


def die_of_interrupt():
    """Ends as Python does on Ctrl-C: by the signal itself."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
