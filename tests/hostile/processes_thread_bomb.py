#: about = "starts threads until it is refused"
#: outcome = "limit_exceeded"
#: limit = "pids"
#: exception = "RuntimeError"
import threading, time
started = 0
while started < 5000:
    threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
    started += 1
