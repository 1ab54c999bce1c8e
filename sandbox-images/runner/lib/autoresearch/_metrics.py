"""The metrics channel: one JSON line for each write, on a descriptor of its own, so that printing forges none.

    {"t":1234,"step":7,"v":{"train/loss":"0.25"}}

`t`: ns since the runner started the program, on CLOCK_MONOTONIC. `step`: absent where the program gave none. Values
are Python's repr of a float, so that NaN and infinities survive JSON. A line is at most 4 KiB and is written with
one `write` on an append-only file: lines of several processes never mix.
"""

import fcntl
import json
import operator
import os
import time
from collections.abc import Mapping

from ._run import STARTED_NS

METRICS_DESCRIPTOR = 3
LINE_BYTES_MAX = 4096
NAME_LENGTH_MAX = 64
NAME_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./@-")
STEP_MAX = (1 << 63) - 1
# Where the copy of the descriptor goes: above what a program that counts its files would close by number.
SPARE_DESCRIPTOR_MIN = 500


def log(step=None, /, *more, **metrics):
    """Logs named scalars: `ar.log(loss=0.3)`, `ar.log(step=7, loss=0.3)` or `ar.log({"val/loss": 0.3}, step=7)`.

    A value goes through `float()`; a name is 1 to 64 of `A-Z a-z 0-9 _ . / @ -`, else ValueError.
    """
    if more:
        raise TypeError("ar.log takes a step and named values: ar.log(step=7, loss=0.3)")
    values = {}
    if isinstance(step, Mapping):
        values.update(step)
        step = None
    if "step" in metrics:
        if step is not None:
            raise TypeError("ar.log was given two steps")
        step = metrics.pop("step")
    values.update(metrics)
    if not values:
        raise TypeError("ar.log was given no value: ar.log(step=7, loss=0.3)")
    for line in lines(_step(step), [(_name(name), repr(float(value))) for name, value in values.items()]):
        _write(line)


def lines(step, values):
    """The lines that carry the values, each of at most LINE_BYTES_MAX bytes."""
    head = '{"t":%d,' % (time.monotonic_ns() - STARTED_NS)
    if step is not None:
        head += '"step":%d,' % step
    head += '"v":{'
    room = LINE_BYTES_MAX - len(head) - len("}}\n")
    done, held, used = [], [], 0
    for name, value in values:
        item = f'{json.dumps(name)}:"{value}"'
        if held and used + len(item) + 1 > room:
            done.append(held)
            held, used = [], 0
        held.append(item)
        used += len(item) + 1
    done.append(held)
    return [(head + ",".join(items) + "}}\n").encode("ascii") for items in done]


def _name(name):
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_LENGTH_MAX or not NAME_LETTERS.issuperset(name):
        raise ValueError(f"{str(name)[:80]!r} is not a metric's name: 1 to 64 of A-Z a-z 0-9 _ . / @ -")
    return name


def _step(step):
    if step is None:
        return None
    if isinstance(step, float) and step.is_integer():
        step = int(step)
    try:
        step = operator.index(step)
    except TypeError:
        raise TypeError(f"a step is an integer, not {step!r}") from None
    if not -STEP_MAX <= step <= STEP_MAX:
        raise ValueError(f"the step {step} does not fit 64 bits")
    return step


def _identity(descriptor):
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


def _open_channel():
    """The channel's identity and the descriptors that lead to it; none in a process that did not inherit it."""
    identity = _identity(METRICS_DESCRIPTOR)
    if identity is None or os.environ.get("AUTORESEARCH_METRICS") != "%d:%d" % identity:
        return None, ()
    spare = fcntl.fcntl(METRICS_DESCRIPTOR, fcntl.F_DUPFD_CLOEXEC, SPARE_DESCRIPTOR_MIN)
    os.set_inheritable(METRICS_DESCRIPTOR, False)
    return identity, (METRICS_DESCRIPTOR, spare)


_channel, _descriptors = _open_channel()


def _write(line):
    # A program may have closed our descriptor and got its number for a file of its own: ask before each write.
    for descriptor in _descriptors:
        if _identity(descriptor) == _channel:
            written = os.write(descriptor, line)
            if written != len(line):
                raise OSError(f"the metrics file took {written} of {len(line)} bytes: the disk limit is reached")
            return
    if _channel is None:
        raise RuntimeError("ar.log works in the program's own process and its forks, not in one started afresh")
    raise RuntimeError("the program closed the descriptor on which metrics are written")
