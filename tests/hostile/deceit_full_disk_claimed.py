#: about = "raises the error of a full disk while there is room"
#: outcome = "failed"
#: exception = "OSError"
raise OSError(28, "No space left on device")
