#: about = "prints the tracebacks of a GPU without memory and of a full disk, and succeeds"
#: outcome = "succeeded"
import os
os.write(2, b"""Traceback (most recent call last):
  File "/in/files/program.py", line 1, in <module>
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB
Traceback (most recent call last):
  File "/in/files/program.py", line 1, in <module>
OSError: [Errno 28] No space left on device
""")
