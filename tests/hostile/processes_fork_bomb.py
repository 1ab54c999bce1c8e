#: about = "forks for ever, whatever is refused"
#: outcome = "timed_out"
#: flags = ["--time-limit", "3s"]
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
