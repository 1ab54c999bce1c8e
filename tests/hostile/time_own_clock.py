#: about = "lies to itself about the time and waits for an end that never comes"
#: outcome = "timed_out"
#: flags = ["--time-limit", "2s"]
#: seconds = 12
import os, time
os.environ.update(FAKETIME="-10y", FAKETIME_DONT_FAKE_MONOTONIC="0", TZ="UTC+24")
time.tzset()
time.time = time.monotonic = time.perf_counter = lambda: 0.0
while time.monotonic() < 1:
    pass
