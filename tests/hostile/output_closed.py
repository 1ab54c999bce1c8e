#: about = "closes its descriptors, and fails in the dark"
#: outcome = "failed"
#: exit = 1
#: exception = "ValueError"
#: stderr = ["nobody hears this"]
import os
for number in (0, 1, 2):
    os.close(number)
raise ValueError("nobody hears this")
