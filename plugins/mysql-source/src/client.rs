//! The few commands that reading takes, over one connection.

use std::net::SocketAddr;

use mysql_async::consts::Command;
use mysql_async::{Column, DriverError, Error, Opts, Value};
use mysql_common::io::ParseBuf;
use mysql_common::packets::{ComStmtExecuteRequestBuilder, StmtPacket};

use crate::login::{login, serialized};
use crate::wire::{Wire, server_error, unexpected};

/// A connection that is logged in.
///
/// Cancel: as for [`Wire`]; and after an error that is not the server's it is in no known state either.
pub struct Client {
    wire: Wire,
}

/// A statement that the server has prepared for this connection.
pub struct Statement {
    id: u32,
    parameters: u16,
    pub columns: Vec<Column>,
}

/// Rows as text, as [`Client::table`] brings them.
pub struct Table {
    names: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
}

impl Table {
    /// The values of a column, row by row.
    pub fn column(&self, name: &str) -> Vec<Option<&str>> {
        let place = self.names.iter().position(|known| known == name);
        self.rows.iter().map(|row| row[place?].as_deref()).collect()
    }
}

impl Client {
    pub async fn connect(addresses: &[SocketAddr], opts: &Opts) -> Result<Client, Error> {
        let mut wire = Wire::connect(addresses).await?;
        login(&mut wire, opts).await?;
        Ok(Client { wire })
    }

    /// Runs SQL that brings no rows.
    pub async fn run(&mut self, sql: &str) -> Result<(), Error> {
        self.command(Command::COM_QUERY, sql.as_bytes()).await?;
        self.wire.packet().await.map(drop)
    }

    /// Runs SQL that brings a few rows.
    pub async fn table(&mut self, sql: &str) -> Result<Table, Error> {
        self.command(Command::COM_QUERY, sql.as_bytes()).await?;
        let names: Vec<String> = self.head().await?.iter().map(|column| column.name_str().into_owned()).collect();
        let mut rows = Vec::new();
        self.rows(|packet| {
            rows.push(text_row(packet, names.len()).ok_or_else(|| unexpected("row"))?);
            Ok::<_, Error>(())
        })
        .await?;
        Ok(Table { names, rows })
    }

    pub async fn prepare(&mut self, sql: &str) -> Result<Statement, Error> {
        self.command(Command::COM_STMT_PREPARE, sql.as_bytes()).await?;
        let prepared = ParseBuf(self.wire.packet().await?).parse::<StmtPacket>(())?;
        self.columns(prepared.num_params().into()).await?;
        let columns = self.columns(prepared.num_columns().into()).await?;
        Ok(Statement { id: prepared.statement_id(), parameters: prepared.num_params(), columns })
    }

    /// Begins to run a prepared statement: the columns of its rows, which [`rows`](Self::rows) brings.
    pub async fn execute(&mut self, statement: &Statement, values: &[Value]) -> Result<Vec<Column>, Error> {
        if values.len() != usize::from(statement.parameters) {
            let (required, supplied) = (statement.parameters, values.len());
            return Err(DriverError::StmtParamsMismatch { required, supplied }.into());
        }
        let (request, is_long) = ComStmtExecuteRequestBuilder::new(statement.id).build(values);
        if is_long {
            return Err(DriverError::PacketTooLarge.into());
        }
        self.wire.command(&serialized(&request)).await?;
        self.head().await
    }

    /// Shows each row of the answer that has begun to `take`, as it lies in the packet.
    pub async fn rows<E: From<Error>>(&mut self, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        loop {
            while let Some(place) = self.wire.cut() {
                let packet = self.wire.bytes(place);
                match packet {
                    // A long row of text may begin so as well.
                    [0xfe, ..] if packet.len() < 9 => return Ok(()),
                    [0xff, ..] => {
                        return Err(server_error(packet).map_or_else(|| unexpected("row"), Error::from).into());
                    }
                    row => take(row)?,
                }
            }
            self.wire.fill().await.map_err(Error::from)?;
        }
    }

    /// Says goodbye to the server, which would else note an aborted connection.
    pub async fn close(mut self) {
        let _ = self.command(Command::COM_QUIT, b"").await;
    }

    async fn command(&mut self, command: Command, text: &[u8]) -> Result<(), Error> {
        self.wire.command(&[&[command as u8], text].concat()).await
    }

    /// The columns of an answer.
    async fn head(&mut self) -> Result<Vec<Column>, Error> {
        let mut packet = ParseBuf(self.wire.packet().await?);
        // 0 columns: there are no rows at all; 0xfb: the server asks for a file, which it was not offered.
        match packet.0.first() {
            None | Some(0x00 | 0xfb) => Err(unexpected("head of the rows")),
            Some(_) => {
                let count = packet.checked_eat_lenenc_int().ok_or_else(|| unexpected("head of the rows"))?;
                self.columns(count as usize).await
            }
        }
    }

    async fn columns(&mut self, count: usize) -> Result<Vec<Column>, Error> {
        let mut columns = Vec::new();
        for _ in 0..count {
            columns.push(ParseBuf(self.wire.packet().await?).parse::<Column>(())?);
        }
        if count > 0 {
            // The EOF packet behind them.
            self.wire.packet().await?;
        }
        Ok(columns)
    }
}

fn text_row(packet: &[u8], columns: usize) -> Option<Vec<Option<String>>> {
    let mut packet = ParseBuf(packet);
    let value = |_| match packet.0.first()? {
        0xfb => {
            packet.skip(1);
            Some(None)
        }
        _ => Some(Some(String::from_utf8_lossy(packet.checked_eat_lenenc_str()?).into_owned())),
    };
    (0..columns).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_text_has_a_value_or_none_for_each_column() {
        assert_eq!(text_row(b"\x02id\xfb\x00", 3).unwrap(), [Some("id".into()), None, Some(String::new())]);
        assert_eq!(text_row(b"\x05id", 1), None);
        assert_eq!(text_row(b"", 1), None);
    }
}
