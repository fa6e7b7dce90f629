"""A server that does what it is told: one line in, one line out.

Used where a test needs a server that behaves in a way that Redis and Memcached do not. One thread, one epoll set.

    echo TEXT       TEXT
    count           how often this connection has asked
    uring           the result of io_uring_setup
    call NUMBER     the result of the system call with that number and no arguments
    exit            ends the server with status 7
"""

import ctypes
import os
import selectors
import socket
import sys

libc = ctypes.CDLL(None, use_errno=True)


def system_call(number, *args):
    result = libc.syscall(number, *args)
    return result if result >= 0 else -ctypes.get_errno()


def answer(line, asked):
    word, _, rest = line.partition(" ")
    if word == "echo":
        return rest
    if word == "count":
        return str(asked)
    if word == "uring":
        return str(system_call(425, 4, ctypes.create_string_buffer(120)))
    if word == "call":
        return str(system_call(int(rest)))
    if word == "exit":
        os._exit(7)
    return "?"


def main():
    selector = selectors.EpollSelector()
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=256)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    clients = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                client, _ = listener.accept()
                selector.register(client, selectors.EVENT_READ)
                clients[client] = [b"", 0]
                continue
            client = key.fileobj
            data = client.recv(65536)
            if not data:
                selector.unregister(client)
                del clients[client]
                client.close()
                continue
            state = clients[client]
            state[0] += data
            while b"\n" in state[0]:
                line, state[0] = state[0].split(b"\n", 1)
                state[1] += 1
                client.sendall(answer(line.decode(), state[1]).encode() + b"\n")


main()
