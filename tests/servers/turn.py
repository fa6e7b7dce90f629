"""A server that does what it is told: one line in, one line out.

Used where a test needs a server that behaves in a way that Redis and Memcached do not. One thread, one epoll set, unless it
is told otherwise.

    echo TEXT       TEXT
    count           how often this connection has asked
    uring           the result of io_uring_setup
    call NUMBER     the result of the system call with that number and no arguments
    exit            ends the server with status 7
    betray ACT ARG  does the act, but only in a follower; a leader answers `loyal`
    tally           how often anybody has asked this, counted in shared memory
    thread          starts a thread that waits for ever
    where           the address of a byte of shared memory that says who one is: 1 for a leader

Both versions of a server get the same answers from the kernel, so a program cannot easily tell that it is a follower. This
one can: somebody writes the byte into the leader's memory after the fork; a follower has a copy of its own.

Under a supervisor that sets NOTIFY_SOCKET it says when it is ready, and now and then that it is alive.
"""

import ctypes
import mmap
import os
import selectors
import signal
import socket
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
# Not empty: this version hangs when it has answered.
tired = []


def system_call(number, *args):
    result = libc.syscall(number, *args)
    return result if result >= 0 else -ctypes.get_errno()


def betray(act, arg, client, shared):
    if act == "answer":
        return "traitor"
    if act == "send":
        client.send(b"a message that nobody asked for\n")
    elif act == "write":
        with open(arg, "w") as file:
            file.write("traitor")
    elif act == "unlink":
        os.unlink(arg)
    elif act == "rename":
        os.rename(arg, arg + ".moved")
    elif act == "kill":
        os.kill(int(arg), 9)
    elif act == "fork":
        if os.fork() == 0:
            open(arg, "w").close()
            os._exit(0)
    elif act == "exec":
        os.execv("/usr/bin/touch", ["touch", arg])
    elif act == "connect":
        socket.create_connection(("127.0.0.1", int(arg))).close()
    elif act == "shared":
        shared[1] = 99
    elif act == "exit":
        os._exit(3)
    elif act == "crash":
        ctypes.string_at(0)
    elif act == "abort":
        os.abort()
    elif act == "fail":
        print("this version does not feel well", file=sys.stderr, flush=True)
        os._exit(3)
    elif act == "sleep":
        signal.pause()
    elif act == "hang":
        while True:
            pass
    elif act == "tire":
        tired.append(act)
    return "loyal"


def answer(line, asked, client, shared):
    word, _, rest = line.partition(" ")
    if word == "echo":
        return rest
    if word == "count":
        return str(asked)
    if word == "where":
        return str(ctypes.addressof(ctypes.c_char.from_buffer(shared)))
    if word == "uring":
        return str(system_call(425, 4, ctypes.create_string_buffer(120)))
    if word == "call":
        return str(system_call(int(rest)))
    if word == "tally":
        tally = int.from_bytes(shared[8:16], "little") + 1
        shared[8:16] = tally.to_bytes(8, "little")
        return str(tally)
    if word == "thread":
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return "started"
    if word == "exit":
        os._exit(7)
    if word == "betray":
        act, _, arg = rest.partition(" ")
        return "loyal" if shared[0] == 1 else betray(act, arg, client, shared)
    return "?"


def serve(client, state, shared):
    data = client.recv(65536)
    state[0] += data
    while b"\n" in state[0]:
        line, state[0] = state[0].split(b"\n", 1)
        state[1] += 1
        client.sendall(answer(line.decode(), state[1], client, shared).encode() + b"\n")
    return data != b""


class Supervisor:
    """Whoever wants to hear that the server is ready and alive; nobody without NOTIFY_SOCKET."""

    def __init__(self):
        address = os.environ.get("NOTIFY_SOCKET")
        self.often = None
        if address is not None:
            self.often = int(os.environ.get("WATCHDOG_USEC", "60000000")) / 1e6 / 20
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.socket.connect("\0" + address[1:] if address.startswith("@") else address)
            self.told = 0

    def tell(self, text):
        if self.often is not None and time.monotonic() - self.told >= self.often:
            self.told = time.monotonic()
            self.socket.send(text)


def main():
    shared = mmap.mmap(-1, 4096)
    supervisor = Supervisor()
    selector = selectors.EpollSelector()
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=256)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    clients = {}
    supervisor.tell(b"READY=1")
    while True:
        while tired:
            pass
        supervisor.tell(b"WATCHDOG=1")
        for key, _ in selector.select(supervisor.often):
            if key.fileobj is listener:
                client, _ = listener.accept()
                selector.register(client, selectors.EVENT_READ)
                clients[client] = [b"", 0]
                continue
            client = key.fileobj
            try:
                open_still = serve(client, clients[client], shared)
            except OSError:
                # The client left in the middle of something.
                open_still = False
            if not open_still:
                selector.unregister(client)
                del clients[client]
                client.close()


main()
