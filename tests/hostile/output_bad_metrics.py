#: about = "gives metrics names and values that are none: NaN, a megabyte, other shapes"
#: outcome = "succeeded"
#: stdout = ["12 refused"]
#: notes = ["were no metrics"]
#: metrics = { fine = 1.0 }
import os
import autoresearch as ar
refused = 0
for name in (float("nan"), None, 7, "", "x" * (1 << 20), "a b", "a\nb", "a=b", "é", "a\x00", ("a",), b"loss"):
    try:
        ar.log({name: 1.0})
        print("REACHED", repr(name)[:40])
    except (ValueError, TypeError):
        refused += 1
for line in (
    b'{"t":1,"v":{"%s":"1"}}' % (b"n" * (1 << 20)), b'{"t":1,"v":{"a":NaN}}', b'{"t":1,"v":{"b":1}}', b'{"t":1e400,"v":{"c":"1"}}',
    b'{"t":1,"step":99999999999999999999,"v":{"d":"1"}}', b'{"t":1,"v":{"e":"1","e":"2"}}', b"[" * 100_000, b"\x00" * 5000,
    b'{"t":1,"v":{"f":"0x10"}}', b'{"t":1,"v":{"g":"1_000"}}', b'{"t":1,"v":{"h":"infinity"}}', b'null', b'"', b'{"t":-1,"v":{"i":"1"}}',
):
    os.write(3, line + b"\n")
ar.log(fine=1.0)
print(refused, "refused")
