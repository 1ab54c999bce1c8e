#: about = "ends by the signal that announces a time-out, at once"
#: outcome = "failed"
#: signal = 15
import os
os.kill(os.getpid(), 15)
