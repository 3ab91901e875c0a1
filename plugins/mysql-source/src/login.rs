//! The greeting of the server and the answer to it: who we are, proven without sending the password in the clear.

use mysql_async::consts::CapabilityFlags;
use mysql_async::{DriverError, Error, Opts};
use mysql_common::crypto;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest, HandshakePacket, HandshakeResponse};
use mysql_common::proto::MySerialize;

use crate::wire::{Wire, unexpected};

/// Without `CLIENT_LOCAL_FILES`, with which a server could ask for files, and `CLIENT_DEPRECATE_EOF`: rows end with an EOF packet.
const WANTED: CapabilityFlags = CapabilityFlags::CLIENT_PROTOCOL_41
    .union(CapabilityFlags::CLIENT_SECURE_CONNECTION)
    .union(CapabilityFlags::CLIENT_LONG_PASSWORD)
    .union(CapabilityFlags::CLIENT_TRANSACTIONS)
    .union(CapabilityFlags::CLIENT_PLUGIN_AUTH)
    .union(CapabilityFlags::CLIENT_CONNECT_WITH_DB);
/// The oldest version that knows utf8mb4, which every server here must.
const VERSION: (u16, u16, u16) = (5, 5, 3);
/// Limit: of the protocol's own.
const PACKET_MAX: u32 = 1 << 30;

/// How the password is proven, and the server's salt for it.
struct Proof {
    plugin: AuthPlugin<'static>,
    salt: Vec<u8>,
}

impl Proof {
    fn answer(&self, opts: &Opts) -> Vec<u8> {
        self.plugin.gen_data(opts.pass(), &self.salt).map(|data| data.to_vec()).unwrap_or_default()
    }
}

/// Logs in over a connection that was just made.
pub async fn login(wire: &mut Wire, opts: &Opts) -> Result<(), Error> {
    let greeting = ParseBuf(wire.packet().await?).parse::<HandshakePacket<'_>>(())?;
    let plugin = match greeting.auth_plugin() {
        Some(AuthPlugin::CachingSha2Password) => AuthPlugin::CachingSha2Password,
        // The server asks for another where the user has another.
        _ => AuthPlugin::MysqlNativePassword,
    };
    let capabilities = greeting.capabilities() & WANTED;
    let proof = Proof { plugin, salt: greeting.nonce() };
    let response = HandshakeResponse::new(
        Some(proof.answer(opts)),
        VERSION,
        opts.user().map(str::as_bytes),
        opts.db_name().map(str::as_bytes),
        Some(proof.plugin.borrow()),
        capabilities,
        None,
        PACKET_MAX,
    );
    wire.send(&serialized(&response)).await?;
    prove(wire, opts, proof).await
}

/// Answers what the server asks until it is content.
async fn prove(wire: &mut Wire, opts: &Opts, mut proof: Proof) -> Result<(), Error> {
    let mut has_switched = false;
    loop {
        match wire.packet().await? {
            [0x00, ..] => return Ok(()),
            packet @ [0xfe, ..] if !has_switched => {
                has_switched = true;
                proof = switched(packet)?;
                wire.send(&proof.answer(opts)).await?;
            }
            // The server remembers the user: its OK follows.
            [0x01, 0x03] if proof.plugin == AuthPlugin::CachingSha2Password => {}
            [0x01, 0x04] if proof.plugin == AuthPlugin::CachingSha2Password => {
                let encrypted = encrypted(wire, opts, &proof.salt).await?;
                wire.send(&encrypted).await?;
            }
            _ => return Err(unexpected("answer to the login")),
        }
    }
}

/// The way of proving that the server wants instead. Ways that show the password, or that are broken, are refused.
fn switched(packet: &[u8]) -> Result<Proof, Error> {
    if packet.len() == 1 {
        return Err(DriverError::MysqlOldPasswordDisabled.into());
    }
    let request = ParseBuf(packet).parse::<AuthSwitchRequest<'_>>(())?;
    match request.auth_plugin() {
        plugin @ (AuthPlugin::MysqlNativePassword | AuthPlugin::CachingSha2Password) => {
            Ok(Proof { plugin: plugin.into_owned(), salt: request.plugin_data().to_vec() })
        }
        AuthPlugin::MysqlOldPassword => Err(DriverError::MysqlOldPasswordDisabled.into()),
        AuthPlugin::MysqlClearPassword => Err(DriverError::CleartextPluginDisabled.into()),
        other => {
            let name = String::from_utf8_lossy(other.as_bytes()).into_owned();
            Err(DriverError::UnknownAuthPlugin { name }.into())
        }
    }
}

/// The password for a server that does not remember the user: encrypted with the server's key, which is asked for.
async fn encrypted(wire: &mut Wire, opts: &Opts, salt: &[u8]) -> Result<Vec<u8>, Error> {
    wire.send(&[0x02]).await?;
    let [0x01, key @ ..] = wire.packet().await? else { return Err(unexpected("public key")) };
    let password = [opts.pass().unwrap_or_default().as_bytes(), b"\0"].concat();
    let masked: Vec<u8> = password.iter().zip(salt.iter().cycle()).map(|(byte, salt)| byte ^ salt).collect();
    Ok(crypto::encrypt(&masked, key))
}

pub fn serialized(packet: &impl MySerialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(packet: &[u8]) -> String {
        switched(packet).err().unwrap().to_string()
    }

    #[test]
    fn a_server_that_wants_the_password_in_the_clear_does_not_get_it() {
        assert!(refusal(b"\xfemysql_clear_password\0").contains("mysql_clear_password"));
        assert!(refusal(b"\xfe").contains("mysql_old_password"));
        assert!(refusal(b"\xfedialog\0salt").contains("dialog"));
        assert!(refusal(b"\xfeclient_ed25519\0salt").contains("client_ed25519"));
    }

    #[test]
    fn a_switch_brings_a_new_salt() {
        let proof = switched(b"\xfecaching_sha2_password\0abcdefghijklmnopqrst\0").unwrap();
        assert_eq!((proof.plugin, proof.salt), (AuthPlugin::CachingSha2Password, b"abcdefghijklmnopqrst".to_vec()));
    }
}
