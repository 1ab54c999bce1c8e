#: about = "sleeps and leaves SIGTERM to the kernel"
#: outcome = "timed_out"
#: flags = ["--time-limit", "1s"]
#: seconds = 10
import time
time.sleep(1000)
