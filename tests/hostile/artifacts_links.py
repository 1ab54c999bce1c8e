#: about = "links to what the worker may read, among its artifacts"
#: outcome = "succeeded"
#: kept = ["good.txt"]
#: checks = ["no_host_files"]
#: [left_out]
#: "shadow" = "symbolic link"
#: "environ" = "symbolic link"
#: "secret" = "symbolic link"
#: "root" = "symbolic link"
#: "up" = "symbolic link"
#: "folder" = "symbolic link"
#: "descriptor" = "symbolic link"
import os
import autoresearch as ar
os.makedirs("artifacts", exist_ok=True)
os.chdir("artifacts")
open("good.txt", "w").write("good")
for name, target in {
    "shadow": "/etc/shadow", "environ": "/proc/1/environ", "secret": ar.params["file"], "root": "/proc/self/root/etc/passwd",
    "up": "../../../../../../../../etc/shadow", "folder": "/etc", "descriptor": "/proc/self/fd/3",
}.items():
    os.symlink(target, name)
