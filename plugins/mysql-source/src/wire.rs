//! Packets of the server's protocol over one connection. What has come is read where it lies, so a row is copied once: into its event.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use mysql_async::{DriverError, Error, ServerError};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// What is asked of the socket at once: as much as the host brings in one call.
const READ: usize = 64 << 10;
/// A packet of so many bytes goes on in the next one.
const CHUNK: usize = 0xff_ffff;
/// Three bytes of length and the packet's number within its command.
const HEADER: usize = 4;
/// Limit: what the buffer keeps from one command to the next when a row has made it larger.
const KEPT_MAX: usize = 1 << 20;
/// Begins a packet that brings an error in place of what was asked for.
const ERROR: u8 = 0xff;

/// ```text
/// buffer  | taken ...... | begun packets ...... | room ... |
///         0              taken                  filled
/// ```
///
/// Cancel: a call that is dropped leaves the connection in the middle of an answer; drop it too.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    taken: usize,
    filled: usize,
    /// Of the next packet that is sent.
    number: u8,
}

impl Wire {
    /// To the first of the addresses that answers.
    pub async fn connect(addresses: &[SocketAddr]) -> io::Result<Wire> {
        let stream = TcpStream::connect(addresses).await?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream, buffer: vec![0; 2 * READ], taken: 0, filled: 0, number: 0 })
    }

    /// Sends the first packet of a command.
    pub async fn command(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.number = 0;
        if self.buffer.len() > KEPT_MAX && self.taken == self.filled {
            (self.buffer, self.taken, self.filled) = (vec![0; 2 * READ], 0, 0);
        }
        self.send(payload).await
    }

    /// Sends the next packet of a command.
    pub async fn send(&mut self, payload: &[u8]) -> Result<(), Error> {
        if payload.len() >= CHUNK {
            return Err(DriverError::PacketTooLarge.into());
        }
        let header = payload.len() as u32 | u32::from(self.number) << 24;
        self.number = self.number.wrapping_add(1);
        self.stream.write_all(&[&header.to_le_bytes(), payload].concat()).await?;
        Ok(())
    }

    /// The next packet, waited for.
    ///
    /// # Errors
    /// Also the error that the server sent in its place.
    pub async fn packet(&mut self) -> Result<&[u8], Error> {
        let place = loop {
            match self.cut() {
                Some(place) => break place,
                None => self.fill().await?,
            }
        };
        let packet = self.bytes(place);
        match server_error(packet) {
            Some(error) => Err(error.into()),
            None => Ok(packet),
        }
    }

    /// Where the next packet lies, if all of it has come; [`bytes`](Self::bytes) shows it until the next [`fill`](Self::fill).
    #[inline]
    pub fn cut(&mut self) -> Option<Range<usize>> {
        let (length, number) = header(&self.buffer[self.taken..self.filled])?;
        if length == CHUNK {
            return self.cut_long();
        }
        let begin = self.taken + HEADER;
        if self.filled - begin < length {
            return None;
        }
        self.number = number.wrapping_add(1);
        self.taken = begin + length;
        Some(begin..self.taken)
    }

    /// One that was sent in several: they are moved together.
    fn cut_long(&mut self) -> Option<Range<usize>> {
        let (mut chunks, mut end) = (Vec::new(), self.taken);
        let number = loop {
            let (length, number) = header(&self.buffer[end..self.filled])?;
            let begin = end + HEADER;
            end = begin + length;
            if end > self.filled {
                return None;
            }
            chunks.push(begin..end);
            if length < CHUNK {
                break number;
            }
        };
        let begin = self.taken + HEADER;
        let mut joined = begin;
        for chunk in chunks {
            let length = chunk.len();
            self.buffer.copy_within(chunk, joined);
            joined += length;
        }
        self.number = number.wrapping_add(1);
        self.taken = end;
        Some(begin..joined)
    }

    #[inline]
    pub fn bytes(&self, place: Range<usize>) -> &[u8] {
        &self.buffer[place]
    }

    /// Waits until more has come.
    pub async fn fill(&mut self) -> io::Result<()> {
        if self.taken > 0 {
            self.buffer.copy_within(self.taken..self.filled, 0);
            (self.taken, self.filled) = (0, self.filled - self.taken);
        }
        if self.buffer.len() - self.filled < READ {
            self.buffer.resize(2 * self.buffer.len(), 0);
        }
        let room = self.filled..self.filled + READ;
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut self.buffer[room.clone()]) {
                Ok(0) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server has closed the connection"));
                }
                Ok(count) => {
                    self.filled += count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Length and number of the packet that begins here.
#[inline]
fn header(bytes: &[u8]) -> Option<(usize, u8)> {
    let header = *bytes.first_chunk::<HEADER>()?;
    Some(((u32::from_le_bytes(header) & 0xff_ffff) as usize, header[3]))
}

/// The error that a packet brings, if it brings one. Before the login is over it comes without its SQL state.
pub fn server_error(packet: &[u8]) -> Option<ServerError> {
    let [ERROR, low, high, rest @ ..] = packet else { return None };
    let (state, message) = match rest {
        [b'#', rest @ ..] if rest.len() >= 5 => rest.split_at(5),
        _ => (&b"HY000"[..], rest),
    };
    Some(ServerError {
        code: u16::from_le_bytes([*low, *high]),
        message: String::from_utf8_lossy(message).into_owned(),
        state: String::from_utf8_lossy(state).into_owned(),
    })
}

/// What is no answer of this protocol.
pub fn unexpected(what: &str) -> Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server's {what} cannot be read")).into()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    /// A wire, and what its other end writes.
    async fn told(parts: Vec<Vec<u8>>) -> Wire {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for part in parts {
                stream.write_all(&part).await.unwrap();
            }
        });
        Wire::connect(&[address]).await.unwrap()
    }

    fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
        let header = payload.len() as u32 | u32::from(number) << 24;
        [&header.to_le_bytes(), payload].concat()
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap().block_on(test);
    }

    #[test]
    fn packets_come_whole_however_they_were_cut() {
        run(async {
            let all: Vec<u8> = (0..1000u32).flat_map(|row| packet(row as u8, &vec![row as u8; row as usize])).collect();
            let mut wire = told(all.chunks(777).map(<[u8]>::to_vec).collect()).await;
            for row in 0..1000 {
                let expected = vec![row as u8; row];
                match row % 256 {
                    // Begins like an error.
                    0xff => drop(wire.packet().await.unwrap_err()),
                    _ => assert_eq!(wire.packet().await.unwrap(), expected),
                }
            }
            assert!(wire.packet().await.is_err());
        });
    }

    #[test]
    fn a_packet_of_several_chunks_is_one() {
        run(async {
            let long = vec![7; CHUNK];
            let parts = vec![packet(0, &long), packet(1, &long), packet(2, b"end"), packet(3, &long), packet(4, b"")];
            let mut wire = told(parts).await;
            assert_eq!(wire.packet().await.unwrap(), [&long[..], &long, b"end"].concat());
            assert_eq!(wire.packet().await.unwrap(), long);
            assert_eq!(wire.number, 5);
        });
    }

    #[test]
    fn an_error_is_the_servers_with_or_without_its_state() {
        let error = server_error(b"\xff\x15\x04#28000Access denied").unwrap();
        assert_eq!((error.code, error.state.as_str(), error.message.as_str()), (1045, "28000", "Access denied"));
        let error = server_error(b"\xff\x10\x04Too many connections").unwrap();
        assert_eq!((error.code, error.state.as_str(), error.message.as_str()), (1040, "HY000", "Too many connections"));
        assert!(server_error(b"\0").is_none());
    }
}
