//! Reads the configuration file and the key files that it names.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tandem_config::{Findings, Settings, Source, load};
use zeroize::Zeroizing;

/// Longest configuration file in octets.
const CONFIG_MAX: u64 = 64 << 20;
/// Longest key file in octets.
const KEY_FILE_MAX: u64 = 1024;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("{0}: {1}; name the configuration file with --config, and make it readable")]
    Io(PathBuf, io::Error),
    /// It has errors.
    #[error(transparent)]
    Findings(#[from] Findings),
}

/// Reads and checks a configuration file. Key files are relative to its folder.
///
/// # Errors
/// If it cannot be read, or has errors.
pub fn read(path: &Path) -> Result<Settings, ReadError> {
    let text = read_text(path, CONFIG_MAX).map_err(|error| ReadError::Io(path.to_owned(), error))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let source = Source::new(path.display().to_string(), text);
    let mut read_key = |name: &str| -> Result<Zeroizing<String>, String> {
        let text = read_text(&folder.join(name), KEY_FILE_MAX).map_err(|error| error.to_string())?;
        Ok(Zeroizing::new(text))
    };
    Ok(load(&source, &mut read_key)?)
}

/// Can others than owner and group read the file, which may hold keys?
#[must_use]
pub fn is_open_to_others(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0)
}

/// Read in one piece: a buffer that grows would leave copies of keys behind.
fn read_text(path: &Path, max: u64) -> io::Result<String> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a file"));
    }
    if metadata.len() > max {
        return Err(io::Error::other(format!("longer than {max} octets")));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    file.take(metadata.len()).read_to_end(&mut bytes)?;
    String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text")
    })
}
