// Serves the files of a folder: `node files.js PORT FOLDER`. Each is read anew, by one of libuv's worker threads.
"use strict";

const fs = require("fs");
const http = require("http");
const path = require("path");

const [port, folder] = process.argv.slice(2);

const server = http.createServer((request, response) => {
  fs.readFile(path.join(folder, path.basename(request.url)), (error, content) => {
    const body = error ? Buffer.from("there is no such file\n") : content;
    response.writeHead(error ? 404 : 200, { "Content-Type": "text/plain", "Content-Length": body.length });
    response.end(body);
  });
});
server.keepAliveTimeout = 60_000;
server.maxRequestsPerSocket = 0;
server.listen(Number(port), "127.0.0.1");
