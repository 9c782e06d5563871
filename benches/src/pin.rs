//! Which thread runs on which core.

use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// What a thread does, as far as its core is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Makes load: the first core.
    Generator,
    /// Is measured: the second core, or the only one.
    UnderTest,
}

/// The cores that this process may use: those of its first thread before that was pinned, which is why they are
/// read once.
fn cores() -> &'static [usize] {
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    CORES.get_or_init(|| {
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect()
    })
}

/// Number of the core of a role.
pub fn core(role: Role) -> Result<usize> {
    let core = match role {
        Role::Generator => cores().first(),
        Role::UnderTest => cores().get(1).or(cores().first()),
    };
    core.copied().context("the cores of this process are not known")
}

/// Pins the calling thread. Threads and processes that it starts inherit this.
pub fn this_thread(role: Role) -> Result<()> {
    let id = core(role)?;
    ensure!(core_affinity::set_for_current(core_affinity::CoreId { id }), "pinning to core {id}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_still_knows_the_cores_of_the_others() {
        let before = (core(Role::Generator).expect("a core"), core(Role::UnderTest).expect("a core"));
        for role in [Role::UnderTest, Role::Generator] {
            let after = std::thread::spawn(move || {
                this_thread(role).expect("pinned");
                let own = core_affinity::get_core_ids().expect("its cores");
                assert_eq!(own.iter().map(|core| core.id).collect::<Vec<_>>(), [core(role).expect("a core")]);
                (core(Role::Generator).expect("a core"), core(Role::UnderTest).expect("a core"))
            });
            assert_eq!(after.join().expect("no panic"), before);
        }
    }
}
