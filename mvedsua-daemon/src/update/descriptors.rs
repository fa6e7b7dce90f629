//! What the descriptors of a process are, for rules that are about listeners, clients or files.

use std::collections::HashMap;

use crate::ptrace::{Pid, procfs};
use crate::rules::Descriptor;

/// Bytes of a socket's link: `socket:[inode]`.
const SOCKET: &str = "socket:[";

/// Returns what is open in a process, as far as `/proc` tells. A connected socket whose local port some listener of the
/// process has is a client; one that it connected itself is a socket.
pub(crate) fn open_in(pid: Pid) -> Vec<(i32, Descriptor)> {
    let Ok(open) = procfs::descriptors(pid) else { return Vec::new() };
    let mut sockets: HashMap<u64, Socket> = HashMap::new();
    for table in ["tcp", "tcp6"] {
        let text = procfs::text(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        sockets.extend(text.lines().skip(1).filter_map(of_tcp));
    }
    let text = procfs::text(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    sockets.extend(text.lines().skip(1).filter_map(of_unix));
    let of = |target: &str| {
        let inode = target.strip_prefix(SOCKET)?.strip_suffix(']')?.parse().ok()?;
        sockets.get(&inode)
    };
    let targets: Vec<(i32, String)> =
        open.into_iter().map(|one| (one.fd, one.target.to_string_lossy().into_owned())).collect();
    let served: Vec<&str> =
        targets.iter().filter_map(|(_, target)| of(target)).filter(|s| s.listens).map(|s| s.place.as_str()).collect();
    let kind = |target: &str| match of(target) {
        Some(socket) if socket.listens => Some(Descriptor::Listener),
        Some(socket) if served.contains(&socket.place.as_str()) => Some(Descriptor::Client),
        Some(_) => Some(Descriptor::Socket),
        None if target.starts_with(SOCKET) => Some(Descriptor::Socket),
        None if target.starts_with("pipe:[") => Some(Descriptor::Pipe),
        None if target == "anon_inode:[eventpoll]" => Some(Descriptor::Epoll),
        None if target.starts_with('/') => Some(Descriptor::File(target.to_owned())),
        None => None,
    };
    targets.iter().filter_map(|(fd, target)| Some((*fd, kind(target)?))).collect()
}

/// A socket of the process's network.
struct Socket {
    listens: bool,
    /// The local port, or the path.
    place: String,
}

/// Reads a line of `/proc/net/tcp`: `sl local remote st … inode`.
fn of_tcp(line: &str) -> Option<(u64, Socket)> {
    const LISTEN: &str = "0A";
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let place = (*words.get(1)?).rsplit_once(':')?.1.to_owned();
    Some((words.get(9)?.parse().ok()?, Socket { listens: *words.get(3)? == LISTEN, place }))
}

/// Reads a line of `/proc/net/unix`: `num refs protocol flags type st inode path`.
fn of_unix(line: &str) -> Option<(u64, Socket)> {
    /// `__SO_ACCEPTCON`.
    const ACCEPTS: u32 = 0x10000;
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let flags = u32::from_str_radix(words.get(3)?, 16).ok()?;
    let place = words.get(7).map_or_else(|| format!("unnamed {}", words[0]), |path| (*path).to_owned());
    Some((words.get(6)?.parse().ok()?, Socket { listens: flags & ACCEPTS != 0, place }))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_process_knows_its_clients() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let outgoing = TcpStream::connect(listener.local_addr().expect("its address")).expect("it listens");
        let (accepted, _) = listener.accept().expect("it was connected to");
        let unix = UnixListener::bind(dir.path().join("s")).expect("a path");
        let file = std::fs::File::create(dir.path().join("f")).expect("a file");
        let open: HashMap<i32, Descriptor> = open_in(Pid(std::process::id().cast_signed())).into_iter().collect();
        assert_eq!(open.get(&listener.as_raw_fd()), Some(&Descriptor::Listener));
        assert_eq!(open.get(&accepted.as_raw_fd()), Some(&Descriptor::Client));
        assert_eq!(open.get(&outgoing.as_raw_fd()), Some(&Descriptor::Socket));
        assert_eq!(open.get(&unix.as_raw_fd()), Some(&Descriptor::Listener));
        let path = dir.path().join("f").canonicalize().expect("it is there").display().to_string();
        assert_eq!(open.get(&file.as_raw_fd()), Some(&Descriptor::File(path)));
    }
}
