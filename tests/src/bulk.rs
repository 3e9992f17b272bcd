//! Large bodies at the least cost for the side that makes or takes them, so that what lies between
//! is what gets measured.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::fd::AsRawFd,
};

use nix::sys::socket::{MsgFlags, recv};

const PIECE: usize = 1 << 20;

/// A head and how many bytes came behind it.
pub fn read_head(stream: &mut TcpStream) -> io::Result<(String, usize)> {
    let mut buffer = [0; 4096];
    let mut used = 0;
    loop {
        let n = stream.read(&mut buffer[used..])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        used += n;
        if let Some(end) = buffer[..used].windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            return Ok((head, used - end - 4));
        }
    }
}

/// Reads so many bytes and drops them before they are copied.
pub fn skip(stream: &TcpStream, mut bytes: usize) -> io::Result<()> {
    // Never written to.
    let mut nowhere = vec![0; PIECE.min(bytes)];
    while bytes > 0 {
        let most = nowhere.len().min(bytes);
        match recv(
            stream.as_raw_fd(),
            &mut nowhere[..most],
            MsgFlags::MSG_TRUNC,
        )? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => bytes -= n,
        }
    }
    Ok(())
}

/// Sends so many bytes.
pub fn send_bytes(stream: &mut TcpStream, mut bytes: usize) -> io::Result<()> {
    static PIECES: [u8; PIECE] = [b'x'; PIECE];
    while bytes > 0 {
        let n = bytes.min(PIECE);
        stream.write_all(&PIECES[..n])?;
        bytes -= n;
    }
    Ok(())
}
