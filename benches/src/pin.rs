//! Which thread runs on which core.

use anyhow::{Context, Result, ensure};

/// What a thread does, as far as its core is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Makes load: the first core.
    Generator,
    /// Is measured: the second core, or the only one.
    UnderTest,
}

/// Number of the core of a role.
pub fn core(role: Role) -> Result<usize> {
    let cores = core_affinity::get_core_ids().context("reading the cores of this process")?;
    let core = match role {
        Role::Generator => cores.first(),
        Role::UnderTest => cores.get(1).or(cores.first()),
    };
    Ok(core.context("this process may use no core")?.id)
}

/// Pins the calling thread.
pub fn this_thread(role: Role) -> Result<()> {
    let id = core(role)?;
    ensure!(core_affinity::set_for_current(core_affinity::CoreId { id }), "pinning to core {id}");
    Ok(())
}
