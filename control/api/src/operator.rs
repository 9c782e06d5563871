//! `tandemctl` to the control process: one JSON object a line over a Unix stream socket.
//!
//! A question is `{"id":1,"method":"show.crypto.ipsec.sa","params":{}}`; the answer is
//! `{"id":1,"result":{...}}` or `{"id":1,"error":{"code":"...","message":"..."}}`. Answers come in the
//! order of the questions. The keys of a result only ever grow; `tandemctl schema` prints their JSON
//! schemas. Everything here is also what `tandemctl --json` prints.

mod answers;
mod redundancy;

pub use answers::*;
pub use redundancy::*;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest question in octets, without the line feed.
pub const QUESTION_MAX: usize = 64 * 1024;

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `show.crypto.ipsec.sa` gives [`IpsecSas`].
    ShowCryptoIpsecSa,
    /// `show.interfaces` gives [`Interfaces`].
    ShowInterfaces,
    /// `show.counters` gives [`Counters`].
    ShowCounters,
    /// `show.policy` gives [`Policies`].
    ShowPolicy,
    /// `show.status` gives [`NodeStatus`].
    ShowStatus,
    /// `show.redundancy` gives [`Redundancy`].
    ShowRedundancy,
    /// `show.redundancy.history` gives [`RedundancyHistory`].
    ShowRedundancyHistory,
    /// `show.ssp` gives [`Ssp`].
    ShowSsp,
    /// `redundancy.switch-over` gives [`SwitchedOver`].
    SwitchOver,
    /// `config.reload` gives [`Reloaded`].
    ConfigReload,
    /// `detach` gives [`Detached`].
    Detach,
}

impl Method {
    /// Every method.
    pub const ALL: &'static [Method] = &[
        Method::ShowCryptoIpsecSa,
        Method::ShowInterfaces,
        Method::ShowCounters,
        Method::ShowPolicy,
        Method::ShowStatus,
        Method::ShowRedundancy,
        Method::ShowRedundancyHistory,
        Method::ShowSsp,
        Method::SwitchOver,
        Method::ConfigReload,
        Method::Detach,
    ];

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Method::ShowCryptoIpsecSa => "show.crypto.ipsec.sa",
            Method::ShowInterfaces => "show.interfaces",
            Method::ShowCounters => "show.counters",
            Method::ShowPolicy => "show.policy",
            Method::ShowStatus => "show.status",
            Method::ShowRedundancy => "show.redundancy",
            Method::ShowRedundancyHistory => "show.redundancy.history",
            Method::ShowSsp => "show.ssp",
            Method::SwitchOver => "redundancy.switch-over",
            Method::ConfigReload => "config.reload",
            Method::Detach => "detach",
        }
    }

    /// The method of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|method| method.name() == name)
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Chosen by the asker, repeated in the answer.
    pub id: u64,
    /// [`Method::name`].
    pub method: String,
    /// Parameters; no method of this version takes any.
    #[serde(default)]
    pub params: serde_json::Map<String, serde_json::Value>,
}

impl Question {
    /// A question without parameters.
    #[must_use]
    pub fn new(id: u64, method: Method) -> Self {
        Self { id, method: method.name().to_owned(), params: serde_json::Map::new() }
    }

    /// Reads one line (without its line feed).
    ///
    /// # Errors
    /// What is wrong with it, and the id to answer with (0 where the line shows none).
    pub fn parse(line: &[u8]) -> Result<(u64, Method), (u64, Failure)> {
        let question: Question = serde_json::from_slice(line).map_err(|error| {
            let id = serde_json::from_slice::<IdOnly>(line).map_or(0, |only| only.id);
            let message = format!(
                "not a question: {error}; send one JSON object a line, such as \
                 {{\"id\":1,\"method\":\"show.status\",\"params\":{{}}}}"
            );
            (id, Failure::new(FailureCode::BadQuestion, message))
        })?;
        let Some(method) = Method::from_name(&question.method) else {
            let names: Vec<&str> = Method::ALL.iter().map(|method| method.name()).collect();
            let shown: String = question.method.chars().take(64).collect();
            let message = format!("no method {shown:?}; there are {}", names.join(", "));
            return Err((question.id, Failure::new(FailureCode::UnknownMethod, message)));
        };
        if let Some(name) = question.params.keys().next() {
            let shown: String = name.chars().take(64).collect();
            let message = format!("{} takes no parameter {shown:?}; leave it out", method.name());
            return Err((question.id, Failure::new(FailureCode::BadQuestion, message)));
        }
        Ok((question.id, method))
    }
}

#[derive(Deserialize)]
struct IdOnly {
    id: u64,
}

/// The answer to a [`Question`]. Either `result` or `error` is there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Id of the question; 0 where it could not be read.
    pub id: u64,
    /// The result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// Why a question was refused. Nothing has changed, if the message does not say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// For people; ends with what to do.
    pub message: String,
}

impl Failure {
    /// A failure.
    #[must_use]
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Kinds of [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// Not a question of this protocol.
    BadQuestion,
    /// There is no such method.
    UnknownMethod,
    /// The line is longer than [`QUESTION_MAX`]; the connection is closed.
    TooLong,
    /// The data plane does not answer.
    DataPlaneUnreachable,
    /// The configuration has errors; nothing has changed.
    ConfigInvalid,
    /// The data plane refused; nothing has changed.
    Refused,
    /// The control process is at work on something else for too long.
    Busy,
}

/// JSON schemas of every result, by method name, with that of [`Failure`] under `error`.
#[must_use]
pub fn schemas() -> BTreeMap<String, serde_json::Value> {
    let mut schemas = BTreeMap::new();
    for method in Method::ALL {
        let schema = match method {
            Method::ShowCryptoIpsecSa => schemars::schema_for!(IpsecSas),
            Method::ShowInterfaces => schemars::schema_for!(Interfaces),
            Method::ShowCounters => schemars::schema_for!(Counters),
            Method::ShowPolicy => schemars::schema_for!(Policies),
            Method::ShowStatus => schemars::schema_for!(NodeStatus),
            Method::ShowRedundancy => schemars::schema_for!(Redundancy),
            Method::ShowRedundancyHistory => schemars::schema_for!(RedundancyHistory),
            Method::ShowSsp => schemars::schema_for!(Ssp),
            Method::SwitchOver => schemars::schema_for!(SwitchedOver),
            Method::ConfigReload => schemars::schema_for!(Reloaded),
            Method::Detach => schemars::schema_for!(Detached),
        };
        schemas.insert(method.name().to_owned(), schema.to_value());
    }
    schemas.insert("error".to_owned(), schemars::schema_for!(Failure).to_value());
    schemas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(u64, Method), (u64, FailureCode)> {
        Question::parse(line.as_bytes()).map_err(|(id, failure)| (id, failure.code))
    }

    #[test]
    fn every_method_is_understood_by_its_name_with_and_without_params() {
        for method in Method::ALL {
            let line = serde_json::to_string(&Question::new(7, *method)).unwrap();
            assert_eq!(parse(&line), Ok((7, *method)));
            assert_eq!(parse(&format!(r#"{{"id":8,"method":"{}"}}"#, method.name())), Ok((8, *method)));
        }
    }

    #[test]
    fn a_bad_question_is_refused_under_its_own_id_where_it_shows_one() {
        assert_eq!(parse("{"), Err((0, FailureCode::BadQuestion)));
        assert_eq!(parse(r#"{"id":3}"#), Err((3, FailureCode::BadQuestion)));
        assert_eq!(parse(r#"{"id":-3,"method":"show.status"}"#), Err((0, FailureCode::BadQuestion)));
        assert_eq!(parse(r#"{"id":4,"method":"show.everything"}"#), Err((4, FailureCode::UnknownMethod)));
        assert_eq!(
            parse(r#"{"id":5,"method":"show.status","params":{"x":1}}"#),
            Err((5, FailureCode::BadQuestion))
        );
        assert_eq!(
            parse(r#"{"id":6,"method":"show.status","params":[]}"#),
            Err((6, FailureCode::BadQuestion))
        );
        assert_eq!(Question::parse(b"\xff\xfe").unwrap_err().0, 0);
    }
}
