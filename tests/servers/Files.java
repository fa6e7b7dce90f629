// The files of a folder over HTTP, with Java's own server and a few threads: `java Files.java PORT ROOT`.

import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.Executors;

class Server {
    public static void main(String[] arguments) throws IOException {
        var address = new InetSocketAddress(InetAddress.getLoopbackAddress(), Integer.parseInt(arguments[0]));
        var root = Path.of(arguments[1]).toRealPath();
        var server = HttpServer.create(address, 128);
        server.createContext("/", exchange -> {
            try (exchange) {
                var file = root.resolve("." + exchange.getRequestURI().getPath()).normalize();
                if (!file.startsWith(root) || !Files.isRegularFile(file)) {
                    exchange.sendResponseHeaders(404, -1);
                    return;
                }
                var bytes = Files.readAllBytes(file);
                exchange.sendResponseHeaders(200, bytes.length == 0 ? -1 : bytes.length);
                if (bytes.length > 0) {
                    exchange.getResponseBody().write(bytes);
                }
            }
        });
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.start();
    }
}
