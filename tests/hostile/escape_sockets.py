#: about = "opens sockets of every family and raw ones"
#: outcome = "succeeded"
#: stdout = ["tried", "unix fine"]
import socket
families = {
    "AF_ALG": 38, "AF_VSOCK": 40, "AF_PACKET": 17, "AF_BLUETOOTH": 31, "AF_CAN": 29, "AF_TIPC": 30, "AF_KCM": 41, "AF_XDP": 44, "AF_RDS": 21, "AF_SMC": 43,
    "AF_KEY": 15, "AF_X25": 9, "AF_AX25": 3, "AF_IPX": 4, "AF_APPLETALK": 5, "AF_LLC": 26, "AF_PPPOX": 24, "AF_NFC": 39, "AF_QIPCRTR": 42, "AF_MCTP": 45, "AF_PHONET": 35,
}
tried = 0
for name, number in families.items():
    for kind in (1, 2, 3, 5):
        tried += 1
        try:
            socket.socket(number, kind)
            print("REACHED", name, kind)
        except OSError:
            pass
for family, kind, protocol in ((2, 3, 1), (2, 3, 255), (10, 3, 58)):
    tried += 1
    try:
        socket.socket(family, kind, protocol)
        print("REACHED raw", family, kind, protocol)
    except OSError:
        pass
one, two = socket.socketpair()
one.send(b"x")
assert two.recv(1) == b"x"
print("tried", tried, "unix fine")
