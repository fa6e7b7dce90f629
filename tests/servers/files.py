"""Serves the files of a folder, `FILES`, to whoever speaks ASGI (`app`) or WSGI (`wsgi`); each is read anew."""

import os

FOLDER = os.environ["FILES"]


def read(path):
    try:
        with open(os.path.join(FOLDER, os.path.basename(path)), "rb") as file:
            return 200, file.read()
    except OSError:
        return 404, b"there is no such file\n"


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    status, body = read(scope["path"])
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ, start_response):
    status, body = read(environ["PATH_INFO"])
    words = {200: "200 OK", 404: "404 Not Found"}
    start_response(words[status], [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
