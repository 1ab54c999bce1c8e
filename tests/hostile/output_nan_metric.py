#: about = "a loss that is no number stops the run at once"
#: outcome = "diverged"
#: seconds = 30
#: message = ["loss"]
import time
import autoresearch as ar
ar.log(step=0, loss=1.0)
ar.log(step=1, loss=float("nan"))
time.sleep(50)
