"""What ordinary programs do, each once. A line that is missing names what the sandbox's walls have broken."""

import asyncio
import concurrent.futures
import ctypes
import multiprocessing
import multiprocessing.shared_memory
import os
import pty
import shutil
import socket
import subprocess
import tempfile
import threading

import joblib
import numpy
import sklearn.ensemble


def square(x):
    return x * x


def add_one(queue, array):
    queue.put(array + 1)


async def speak():
    child = await asyncio.create_subprocess_exec("echo", "hello", stdout=asyncio.subprocess.PIPE)
    return (await child.communicate())[0]


def main():
    threads = [threading.Thread(target=square, args=(x,)) for x in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("threads")

    piped = subprocess.run(["/bin/sh", "-c", "echo hello | cat"], capture_output=True, text=True, check=True)
    assert piped.stdout == "hello\n"
    assert asyncio.run(speak()) == b"hello\n"
    print("subprocess")

    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(square, range(4)) == [0, 1, 4, 9]
        print(method)
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        assert list(pool.map(square, [1, 2])) == [1, 4]
    queue = multiprocessing.Queue()
    child = multiprocessing.Process(target=add_one, args=(queue, numpy.ones(10)))
    child.start()
    assert queue.get(timeout=60).sum() == 20
    child.join()
    assert joblib.Parallel(2)(joblib.delayed(square)(x) for x in range(4)) == [0, 1, 4, 9]
    print("queues")

    block = multiprocessing.shared_memory.SharedMemory(create=True, size=1 << 20)
    block.buf[0] = 7
    block.close()
    block.unlink()
    print("shared memory")

    one, other = socket.socketpair()
    one.send(b"x")
    assert other.recv(1) == b"x"
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            assert client.getsockname()[0] == "127.0.0.1"
    # Both through netlink; distributed training begins with the second.
    assert "lo" in [name for _, name in socket.if_nameindex()]
    assert ctypes.CDLL(None).getifaddrs(ctypes.byref(ctypes.c_void_p())) == 0
    print("sockets")

    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/a", "w") as file:
            file.write("x")
        shutil.copy2(f"{folder}/a", f"{folder}/b")
        shutil.copytree(folder, "/work/copy")
        os.mkfifo(f"{folder}/fifo")
        os.symlink("a", f"{folder}/link")
        assert sorted(os.listdir(folder)) == ["a", "b", "fifo", "link"]
    print("files")

    pid, descriptor = pty.fork()
    if pid == 0:
        os.execvp("echo", ["echo", "hello"])
    assert os.read(descriptor, 100) == b"hello\r\n"
    os.waitpid(pid, 0)
    print("terminal")

    x, y = numpy.random.rand(200, 5), numpy.random.randint(0, 2, 200)
    sklearn.ensemble.RandomForestClassifier(20, n_jobs=2).fit(x, y).predict(x)
    numpy.linalg.svd(numpy.random.rand(50, 50))
    print("numbers")


if __name__ == "__main__":
    main()
