#: about = "reads where nobody writes"
#: outcome = "timed_out"
#: flags = ["--time-limit", "1s"]
#: seconds = 10
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.mkfifo("fifo")
open("fifo", "rb").read()
