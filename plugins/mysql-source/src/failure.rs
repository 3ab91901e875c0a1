//! Whose fault an error is: a server that is away is tried again, what the operator wrote wrong stops the stage.

use mysql_async::{DriverError, Error, ServerError};
use wasmflow_sdk::prelude::Failure;

/// Server errors that pass by themselves, beside the SQL states of [`passes`]. From the lists of MySQL 8.4 and MariaDB 11: too many
/// connections, out of memory or threads, host blocked, shutting down, aborted connections, network errors of the server's side,
/// lock waits and deadlocks, killed or timed-out queries, a table or statement that changed meanwhile, limits of the account, a
/// cluster node that is not ready.
const PASSING: [u16; 34] = [
    1037, 1038, 1040, 1041, 1042, 1047, 1053, 1077, 1079, 1080, 1105, 1129, 1135, 1152, 1158, 1159, 1160, 1161, 1180,
    1184, 1203, 1205, 1206, 1213, 1226, 1317, 1412, 1615, 1927, 1969, 3024, 3168, 3169, 4031,
];

/// Whether a server error passes: connection exceptions and rolled-back transactions do by their SQL state.
fn passes(error: &ServerError) -> bool {
    PASSING.contains(&error.code) || error.state.starts_with("40") || is_connection_state(error)
}

/// 08S01 and its like. But 08004 is also the state of a refusal that stays.
fn is_connection_state(error: &ServerError) -> bool {
    error.state.starts_with("08") && error.state != "08004"
}

/// Whether the connection, and nothing else, is gone: a new one may work at once.
pub fn is_connection_lost(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::Driver(DriverError::ConnectionClosed) => true,
        Error::Server(error) => matches!(error.code, 1053 | 1927 | 4031) || is_connection_state(error),
        _ => false,
    }
}

/// What went wrong on a connection.
pub enum Trouble {
    Database(Error),
    Failure(Failure),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Database(error)
    }
}

/// With the server's own text. The password is in none of these texts: the server says only whether there was one.
pub fn failure(address: &str, error: &Error) -> Failure {
    let reason = match error {
        Error::Server(ServerError { code, state, message }) => format!("{address}: error {code} ({state}): {message}"),
        Error::Io(mysql_async::IoError::Io(error)) => format!("{address}: {error}"),
        other => format!("{address}: {other}"),
    };
    let stays = match error {
        Error::Server(error) => !passes(error),
        Error::Driver(error) => matches!(
            error,
            DriverError::UnknownAuthPlugin { .. }
                | DriverError::MysqlOldPasswordDisabled
                | DriverError::CleartextPluginDisabled
                | DriverError::MixedParams
                | DriverError::StmtParamsMismatch { .. }
                | DriverError::Params(_)
                | DriverError::PacketTooLarge
        ),
        Error::Url(_) => true,
        _ => false,
    };
    if stays { Failure::fatal(reason) } else { Failure::retry(reason) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: u16, state: &str) -> Failure {
        let error = ServerError { code, message: "text".into(), state: state.into() };
        failure("db:3306", &Error::Server(error))
    }

    fn io() -> Error {
        Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
    }

    #[test]
    fn what_the_operator_must_change_is_fatal_with_the_servers_text() {
        for (code, state) in
            [(1045, "28000"), (1049, "42000"), (1054, "42S22"), (1064, "42000"), (1146, "42S02"), (1142, "42000")]
        {
            let Failure::Fatal(reason) = server(code, state) else { panic!("{code}") };
            assert_eq!(reason, format!("db:3306: error {code} ({state}): text"));
        }
    }

    #[test]
    fn a_server_that_is_down_or_busy_is_tried_again_with_its_address() {
        for (code, state) in [(1040, "08004"), (1053, "08S01"), (1205, "HY000"), (1213, "40001"), (1317, "70100")] {
            assert!(matches!(server(code, state), Failure::Retry(_)), "{code}");
        }
        let Failure::Retry(retry) = failure("db:3306", &io()) else { panic!() };
        assert!(retry.reason.starts_with("db:3306: "), "{}", retry.reason);
        assert!(is_connection_lost(&io()));
    }
}
