#: about = "kills itself: no limit was met"
#: outcome = "failed"
#: signal = 9
#: message = ["from inside"]
import os
os.kill(os.getpid(), 9)
