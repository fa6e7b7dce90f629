//! What carries a client's bytes: a TCP connection, or datagrams.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};

/// How a client reaches its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    /// One datagram is one request, one datagram its answer. On the loopback none is lost unless a buffer overflows, so a
    /// missing answer is the server's fault.
    Udp,
}

/// A connected socket that does not block.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Stream {
    /// Begins to connect; the socket is writable once that is done.
    pub(super) fn connect(transport: Transport, address: SocketAddr) -> nix::Result<Stream> {
        let kind = match transport {
            Transport::Tcp => SockType::Stream,
            Transport::Udp => SockType::Datagram,
        };
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket::socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
        match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(match transport {
            Transport::Tcp => Stream::Tcp(fd.into()),
            Transport::Udp => Stream::Udp(fd.into()),
        })
    }

    /// Says whether the server has answered the connection.
    pub(super) fn connected(&self) -> io::Result<()> {
        let error = match self {
            Stream::Tcp(stream) => stream.take_error()?,
            Stream::Udp(socket) => socket.take_error()?,
        };
        match (error, self) {
            (Some(error), _) => Err(error),
            (None, Stream::Tcp(stream)) => stream.set_nodelay(true),
            (None, Stream::Udp(_)) => Ok(()),
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Udp(socket) => socket.recv(buffer),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Udp(socket) => socket.send(bytes),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Udp(socket) => socket.as_fd(),
        }
    }
}
