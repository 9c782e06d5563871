//! Why an order of an operator was not done.

use crate::session::SessionError;
use crate::settings_file::ReadError;
use std::path::Path;
use tandem_api::operator::{Failure, FailureCode};

/// Why an order was not done.
pub enum Trouble {
    /// For the operator as it is.
    Failure(Failure),
    /// The data plane.
    Session(SessionError),
    /// The configuration file.
    Read(ReadError),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Failure(failure)
    }
}

impl From<SessionError> for Trouble {
    fn from(error: SessionError) -> Self {
        Trouble::Session(error)
    }
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        Trouble::Read(error)
    }
}

impl Trouble {
    /// What the operator is told.
    pub fn failure(&self, socket: &Path) -> Failure {
        match self {
            Trouble::Failure(failure) => failure.clone(),
            Trouble::Read(error) => Failure::new(FailureCode::ConfigInvalid, error.to_string()),
            Trouble::Session(error) if error.is_refusal() => Failure::new(
                FailureCode::Refused,
                format!("the data plane refused: {error}; nothing has changed"),
            ),
            Trouble::Session(error) => {
                let message = format!(
                    "data plane not reachable at {}: {error}; it is tried again, see `tandemctl show status`",
                    socket.display()
                );
                Failure::new(FailureCode::DataPlaneUnreachable, message)
            }
        }
    }

    /// Is the connection of no use any more?
    pub fn lost(&self) -> Option<String> {
        match self {
            Trouble::Session(error) if !error.is_refusal() => Some(error.to_string()),
            _ => None,
        }
    }
}
