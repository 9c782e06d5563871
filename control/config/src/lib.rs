//! The configuration of Tandem: parse, check, explain.
//!
//! Text in, [`Settings`] or every error at once out; nothing is read or written here. The text and the
//! keys in it are zeroized when they are dropped, and no error ever shows a key.
//!
//! ```
//! use tandem_config::{Source, load};
//!
//! let source = Source::new("tandem.toml", "[node]\nname = \"gw a\"\n".to_owned());
//! let findings = load(&source, &mut |_| Err("no such file".to_owned())).unwrap_err();
//! assert!(findings.to_string().contains("tandem.toml:2:8"));
//! ```

mod crypto_map;
mod digest;
mod finding;
mod interface;
mod key;
mod node;
mod overlap;
mod policy;
mod reader;
mod redundancy;
mod settings;

pub use digest::DigestEntry;
pub use finding::{Finding, Findings, Source};
pub use key::fingerprint;
pub use redundancy::Redundancy;
pub use settings::{CryptoMap, KeyFileReader, Node, Settings, load};
