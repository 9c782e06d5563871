//! The pinned link: attached once, its program replaced in place by each start, gone only when it is detached.

use crate::Error;
use crate::interface::{self, Interface, XdpPlace};
use crate::sys;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpError, XdpLink};
use aya::programs::{ProgramError, Xdp, XdpMode};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the kernel's network stack, for drivers without XDP. Slow.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Native => "native",
            Mode::Generic => "generic",
        })
    }
}

/// A pinned link and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Identifier of the link; stays when the program is replaced.
    pub link_id: u32,
    /// Identifier of the program, as `bpftool prog` shows it.
    pub program_id: u32,
    /// Interface. 0: it is gone, and the pin is stale.
    pub ifindex: u32,
    /// The program that was there before and was replaced.
    pub replaced: Option<u32>,
}

/// What is pinned at `pin`; `None` where nothing is.
///
/// # Errors
/// [`Error::PinAccess`], [`Error::NotALink`].
pub fn attachment(pin: &Path) -> Result<Option<Attachment>, Error> {
    Ok(open(pin)?.map(|(_, attachment)| attachment))
}

/// Takes the program off its interface, at once and whoever else holds the link, and removes the pin. False where
/// there is no pin.
///
/// # Errors
/// [`Error::PinAccess`], [`Error::NotALink`].
pub fn detach(pin: &Path) -> Result<bool, Error> {
    let Some((link, _)) = open(pin)? else { return Ok(false) };
    sys::detach_link(link.as_fd()).map_err(pin_access("detaching the link at", pin))?;
    std::fs::remove_file(pin).map_err(pin_access("removing", pin))?;
    Ok(true)
}

/// Attaches a loaded program: replaces the one behind the pin, or makes link and pin.
pub(crate) fn attach(
    program: &mut Xdp,
    ifindex: u32,
    mode: Mode,
    pin: &Path,
    own_mac: [u8; 6],
) -> Result<Attachment, Error> {
    let interface = interface::query(ifindex)?;
    if interface.address != own_mac {
        return Err(Error::WrongMac {
            ifindex,
            actual: mac_text(&interface.address),
            configured: mac_text(&own_mac),
        });
    }
    let Some((_, present)) = open(pin)? else { return create(program, ifindex, mode, pin) };
    if present.ifindex == 0 {
        // The interface that it belonged to is gone; a new one may have its name.
        std::fs::remove_file(pin).map_err(pin_access("removing the stale pin", pin))?;
        return create(program, ifindex, mode, pin);
    }
    match interface.xdp {
        // The index alone does not say which interface: each network namespace has its own.
        Some((program_id, place)) if present.ifindex == ifindex && program_id == present.program_id => {
            if place != mode.place() {
                return Err(Error::ModeDiffers {
                    pin: pin.to_owned(),
                    ifindex,
                    present: place.to_string(),
                    asked: mode.to_string(),
                });
            }
            replace(program, pin, present)
        }
        _ => Err(Error::PinOfOther { pin: pin.to_owned(), present: present.ifindex, asked: ifindex }),
    }
}

fn replace(program: &mut Xdp, pin: &Path, present: Attachment) -> Result<Attachment, Error> {
    let replacing =
        |source: ProgramError| Error::Program { operation: "replacing", source: Box::new(source) };
    let link = PinnedLink::from_pin(pin).map_err(|_| Error::NotALink(pin.to_owned()))?;
    let link = XdpLink::try_from(FdLink::from(link)).map_err(|_| Error::NotALink(pin.to_owned()))?;
    let id = program.attach_to_link(link).map_err(replacing)?;
    // The pin alone keeps the link: a detach by another process must not wait for this one.
    drop(program.take_link(id).map_err(replacing)?);
    let now = attachment(pin)?.ok_or_else(|| Error::NotALink(pin.to_owned()))?;
    Ok(Attachment { replaced: Some(present.program_id), ..now })
}

fn create(program: &mut Xdp, ifindex: u32, mode: Mode, pin: &Path) -> Result<Attachment, Error> {
    let attached = program
        .attach_to_if_index(ifindex, mode.flags())
        .and_then(|id| program.take_link(id))
        .map_err(|error| explain(error, ifindex, mode))?;
    // aya falls back to an attachment without a link, which ends with this value.
    let link = FdLink::try_from(attached).map_err(|_| Error::NoXdpLinks)?;
    link.pin(pin).map_err(|error| Error::Pin { pin: pin.to_owned(), reason: chain(&error) })?;
    attachment(pin)?.ok_or_else(|| Error::NotALink(pin.to_owned()))
}

/// The pinned link; `None` where nothing is pinned.
fn open(pin: &Path) -> Result<Option<(OwnedFd, Attachment)>, Error> {
    let Some(link) = sys::open_pin(pin).map_err(pin_access("opening", pin))? else { return Ok(None) };
    // Programs and maps can be pinned too, and the kernel describes them in the same octets.
    let kind = std::fs::read_link(format!("/proc/self/fd/{}", link.as_raw_fd()))
        .map_err(pin_access("identifying", pin))?;
    if !matches!(kind.to_str(), Some("anon_inode:bpf_link" | "anon_inode:bpf-link")) {
        return Err(Error::NotALink(pin.to_owned()));
    }
    let info = sys::link_info(link.as_fd()).map_err(pin_access("reading", pin))?;
    let attachment =
        Attachment { link_id: info.id, program_id: info.program_id, ifindex: info.ifindex, replaced: None };
    Ok(Some((link, attachment)))
}

fn explain(error: ProgramError, ifindex: u32, mode: Mode) -> Error {
    let errno = match &error {
        ProgramError::SyscallError(call) => call.io_error.raw_os_error(),
        ProgramError::XdpError(XdpError::NetlinkError(netlink)) => netlink.raw_os_error(),
        _ => None,
    };
    if let Some(libc::EBUSY | libc::EEXIST) = errno
        && let Ok(Interface { xdp: Some((program_id, place)), .. }) = interface::query(ifindex)
    {
        return Error::Occupied { ifindex, program_id, mode: place.to_string() };
    }
    let hint = match errno {
        Some(libc::EOPNOTSUPP) if mode == Mode::Native => "; the driver has no native XDP: use generic mode",
        Some(libc::EINVAL | libc::ERANGE) => {
            "; look at the kernel log, and at the MTU (a frame must fit one page) and the number of queues"
        }
        Some(libc::EPERM) => "; it takes CAP_NET_ADMIN and CAP_BPF",
        _ => "",
    };
    Error::Attach { ifindex, mode: mode.to_string(), source: chain(&error).into(), hint }
}

/// An error and its causes: aya's own texts leave the cause out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn pin_access(operation: &'static str, pin: &Path) -> impl Fn(io::Error) -> Error {
    let pin = pin.to_owned();
    move |source| Error::PinAccess { operation, pin: pin.clone(), source }
}

fn mac_text(address: &[u8]) -> String {
    let octets: Vec<String> = address.iter().map(|octet| format!("{octet:02x}")).collect();
    octets.join(":")
}

impl Mode {
    fn flags(self) -> XdpMode {
        match self {
            Mode::Native => XdpMode::Driver,
            Mode::Generic => XdpMode::Skb,
        }
    }

    fn place(self) -> XdpPlace {
        match self {
            Mode::Native => XdpPlace::Native,
            Mode::Generic => XdpPlace::Generic,
        }
    }
}

impl fmt::Display for XdpPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            XdpPlace::Native => "native",
            XdpPlace::Generic => "generic",
            XdpPlace::Other => "offloaded or several",
        })
    }
}
