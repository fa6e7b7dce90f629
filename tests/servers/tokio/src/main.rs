//! Serves the files of the folder `FILES` on a port of the loopback; each is read anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The longest head of a request.
const LONGEST: usize = 16 << 10;

fn main() -> std::io::Result<()> {
    let port: u16 = std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("usage: files-tokio PORT");
    let folder = Arc::new(PathBuf::from(std::env::var_os("FILES").expect("FILES names the folder")));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (client, _) = listener.accept().await?;
            let folder = Arc::clone(&folder);
            // A client that goes away ends its own task alone.
            tokio::spawn(async move { drop(serve(client, &folder).await) });
        }
    })
}

/// Answers one client until it leaves.
async fn serve(mut client: TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut input = Vec::new();
    loop {
        while let Some(end) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&input[..end]).into_owned();
            input.drain(..end + 4);
            let name = head.split_whitespace().nth(1).and_then(|path| path.rsplit('/').next()).unwrap_or_default();
            let (status, body) = match tokio::fs::read(folder.join(name)).await {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", b"there is no such file\n".to_vec()),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            client.write_all(&[head.as_bytes(), &body].concat()).await?;
        }
        let mut more = [0; 4096];
        match client.read(&mut more).await? {
            0 => return Ok(()),
            read if input.len() + read <= LONGEST => input.extend_from_slice(&more[..read]),
            _ => return Ok(()),
        }
    }
}
