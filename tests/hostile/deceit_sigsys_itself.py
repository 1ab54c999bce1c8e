#: about = "dies of the signal that a forbidden call gives"
#: outcome = "failed"
#: signal = 31
#: message = ["forbids"]
import os
os.kill(os.getpid(), 31)
