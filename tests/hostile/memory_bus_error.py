#: about = "touches a map of a file that it has cut: a signal that is its own doing"
#: outcome = "failed"
#: signal = 7
import mmap, os
file = os.open("cut", os.O_CREAT | os.O_RDWR)
os.ftruncate(file, 1 << 20)
area = mmap.mmap(file, 1 << 20)
os.ftruncate(file, 0)
area[4096]
