#: about = "starts programs the vfork way until it is refused"
#: outcome = "limit_exceeded"
#: limit = "pids"
#: exception = "BlockingIOError"
import os
while True:
    os.posix_spawn("/bin/sleep", ["sleep", "100"], {})
