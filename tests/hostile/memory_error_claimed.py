#: about = "says that it has no memory while it has: its own error, and no limit was met"
#: outcome = "failed"
#: exit = 1
#: exception = "MemoryError"
raise MemoryError("killed by the kernel for memory")
