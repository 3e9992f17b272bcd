//! The protocol without its transport: records in, records out. It holds no buffers of its own; what
//! it is given and what comes out belongs to the caller.

use std::{fmt, io};

use rustls::{
    CommonState, Error, ProtocolVersion,
    client::UnbufferedClientConnection,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus},
};

/// One side of a TLS connection.
pub(super) enum Session {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// What is to be done as soon as the session may send.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wish<'a> {
    /// Nothing: only take in what has come.
    None,
    /// Send this.
    Send(&'a [u8]),
    /// Say that nothing more will be sent.
    Close,
}

/// Where what comes out goes.
#[derive(Debug)]
pub(super) struct Out<'a> {
    /// Decrypted bytes, as long as there is room.
    pub(super) space: &'a mut [u8],
    pub(super) filled: usize,
    /// Decrypted bytes beyond that.
    pub(super) plain: &'a mut Vec<u8>,
    /// Records to be sent.
    pub(super) records: &'a mut Vec<u8>,
}

/// How far it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Bytes of the other side are needed to go on with the handshake.
    Wants,
    /// Both sides may speak.
    Open,
    /// Both sides have said their last.
    Closed,
}

/// What became of some incoming bytes.
#[derive(Debug)]
pub(super) struct Driven {
    /// So many of them are used up; the rest must be offered again, with more behind it.
    pub(super) used: usize,
    /// The other side said that it will send nothing more.
    pub(super) ended: bool,
    pub(super) progress: Result<Progress, Error>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server(_) => "Server",
            Self::Client(_) => "Client",
        })
    }
}

enum Step {
    Again,
    Ended,
    At(Progress),
}

impl Session {
    pub(super) fn common(&self) -> &CommonState {
        match self {
            Self::Server(server) => server,
            Self::Client(client) => client,
        }
    }

    /// Whether the other side, at the end of the handshake, cannot speak before it has heard our
    /// last: a client of TLS 1.2 waits for the server's. In TLS 1.3 it speaks first.
    pub(super) fn is_waited_for(&self) -> bool {
        matches!(self, Self::Server(server)
            if server.protocol_version() == Some(ProtocolVersion::TLSv1_2))
    }

    /// Takes in `incoming` as far as it goes, then does what is wished.
    pub(super) fn drive(
        &mut self,
        incoming: &mut [u8],
        wish: Wish<'_>,
        out: &mut Out<'_>,
    ) -> Driven {
        let (mut used, mut ended) = (0, false);
        let progress = loop {
            let rest = &mut incoming[used..];
            let (discard, step) = match self {
                Self::Server(server) => settle(server.process_tls_records(rest), wish, out),
                Self::Client(client) => settle(client.process_tls_records(rest), wish, out),
            };
            used += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Ended) => ended = true,
                Ok(Step::At(progress)) => break Ok(progress),
                Err(error) => {
                    self.take_alert(&mut incoming[used..], out);
                    break Err(error);
                }
            }
        };
        Driven {
            used,
            ended,
            progress,
        }
    }

    /// After an error there may be an alert that tells the other side.
    fn take_alert(&mut self, rest: &mut [u8], out: &mut Out<'_>) {
        let (_, _step) = match self {
            Self::Server(server) => settle(server.process_tls_records(rest), Wish::None, out),
            Self::Client(client) => settle(client.process_tls_records(rest), Wish::None, out),
        };
    }
}

fn settle<D>(
    status: UnbufferedStatus<'_, '_, D>,
    wish: Wish<'_>,
    out: &mut Out<'_>,
) -> (usize, Result<Step, Error>) {
    let mut discard = status.discard;
    let step = match status.state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut result = Ok(Step::Again);
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        out.take(record.payload);
                    }
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
            }
            result
        }
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let encoded = out.encode(ROOM, |space| {
                data.encode(space).map_err(|error| match error {
                    EncodeError::InsufficientSize(size) => Ok(size.required_size),
                    EncodeError::AlreadyEncoded => Err(error.to_string()),
                })
            });
            encoded.map(|()| Step::Again)
        }
        // What was encoded is kept until it is sent, so for the session it is.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::At(Progress::Wants)),
        Ok(ConnectionState::PeerClosed) => Ok(Step::Ended),
        Ok(ConnectionState::Closed) => Ok(Step::At(Progress::Closed)),
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            let size = |error: EncryptError| match error {
                EncryptError::InsufficientSize(size) => Ok(size.required_size),
                EncryptError::EncryptExhausted => Err(error.to_string()),
            };
            let done = match wish {
                Wish::None => Ok(()),
                Wish::Send(data) => out.encode(ROOM + data.len() + data.len() / 32, |space| {
                    traffic.encrypt(data, space).map_err(size)
                }),
                Wish::Close => out.encode(ROOM, |space| {
                    traffic.queue_close_notify(space).map_err(size)
                }),
            };
            done.map(|()| Step::At(Progress::Open))
        }
        // Early data is never asked for.
        Ok(_) => Err(Error::General("an unexpected state of the session".into())),
    };
    (discard, step)
}

/// Room that is made beyond the data; the session says when it needs more.
const ROOM: usize = 256;

impl Out<'_> {
    fn take(&mut self, payload: &[u8]) {
        let room = &mut self.space[self.filled..];
        let fits = if self.plain.is_empty() {
            payload.len().min(room.len())
        } else {
            0
        };
        room[..fits].copy_from_slice(&payload[..fits]);
        self.filled += fits;
        self.plain.extend_from_slice(&payload[fits..]);
    }

    /// Appends what `encode` writes; it says how much room it needs when it is too little.
    fn encode(
        &mut self,
        mut room: usize,
        mut encode: impl FnMut(&mut [u8]) -> Result<usize, Result<usize, String>>,
    ) -> Result<(), Error> {
        let start = self.records.len();
        let written = loop {
            self.records.resize(start + room, 0);
            match encode(&mut self.records[start..]) {
                Ok(written) => break Ok(written),
                Err(Ok(needed)) if needed > room => room = needed,
                Err(Ok(_)) => break Err("the session cannot say its size".to_owned()),
                Err(Err(why)) => break Err(why),
            }
        };
        self.records
            .truncate(start + written.as_ref().unwrap_or(&0));
        written.map(drop).map_err(Error::General)
    }
}

/// A broken session as an I/O error.
pub(super) fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
