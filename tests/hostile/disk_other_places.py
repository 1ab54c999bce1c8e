#: about = "looks for a folder that it may write to besides those that it was given"
#: outcome = "succeeded"
#: stdout = ["looked into"]
import os
GIVEN = ("/dev/shm", "/dev/mqueue", "/proc", "/sys", os.getcwd(), "/tmp")
looked = 0
for root, folders, _ in os.walk("/"):
    folders[:] = [f for f in folders if os.path.join(root, f) not in GIVEN and root.count("/") < 5]
    if root in GIVEN:
        continue
    looked += 1
    try:
        path = os.path.join(root, "evil")
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        print("REACHED", path)
    except OSError:
        pass
print("looked into", looked)
