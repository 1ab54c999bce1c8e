#: about = "looks for other runs, for the worker's files, and writes metrics under another run's id"
#: outcome = "succeeded"
#: metrics = { mine = 1.0 }
#: notes = ["were no metrics"]
#: stdout = ["looked at"]
import glob, os
import autoresearch as ar
data = ar.params["data_dir"]
places = [data, data + "/worker", data + "/worker/runs", data + "/worker/sandboxes", data + "/worker/blobs", data + "/journal.db", "/var/lib/docker",
          "/var/lib/autoresearch-worker", os.path.dirname(ar.params["file"]), ar.params["file"], "/root/.local/share/autoresearch", "/proc/1/root", "/proc/1/cwd"]
looked = 0
for path in places:
    looked += 1
    for call in (os.listdir, lambda p: open(p, "rb").read(1)):
        try:
            print("REACHED", path, repr(call(path))[:80])
        except OSError:
            pass
for path in glob.glob("/*/*/sandboxes/*") + glob.glob("/*/volume.ext4") + glob.glob("/in/init"):
    try:
        open(path, "rb").read(1)
        print("REACHED", path)
    except OSError:
        pass
for name in ("../metrics", "/logs/../logs/metrics", "/logs/metrics"):
    try:
        open(name, "a").write("x")
        print("REACHED", name)
    except OSError:
        pass
other = "0190a5c8-0000-7000-8000-000000000000"
for line in ('{"t":1,"run_id":"%s","v":{"stolen":"1.0"}}' % other, '{"run":"%s","t":1,"v":{"stolen":"1.0"}}' % other, '%s {"t":1,"v":{"stolen":"1.0"}}' % other,
             '{"t":1,"v":{"%s:stolen":"1.0"}}' % other):
    os.write(3, line.encode() + b"\n")
ar.log(mine=1.0)
print("looked at", looked)
