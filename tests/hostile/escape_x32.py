#: about = "calls by x32 numbers, which a filter of numbers may not know"
#: outcome = "succeeded"
#: stdout = ["tried"]
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
tried = 0
for number in (39, 102, 57, 41, 101, 165, 272, 425, 512, 520, 545):
    tried += 1
    child = os.fork()
    if child == 0:
        arguments = (38, 5, 0) if number == 41 else (0, 0, 0, 0, 0)
        result = libc.syscall(ctypes.c_long(number | 0x40000000), *arguments)
        if number == 57 and result == 0:
            os._exit(9)
        os._exit(9 if result >= 0 else 0)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 9:
        print("REACHED x32 call", number)
print("tried", tried)
