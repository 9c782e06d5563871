//! Switches that break one rule each. They exist only with the feature `mutants`, for the test that the simulation
//! finds every one of them; without it [`is`] is constant.
//!
//! Two rules of F18 have no switch, because in this machine breaking them can have no effect:
//! - *A node that became active acknowledges nothing.* Each of its messages names its own reign, which demotes the
//!   reader before it reads an answer; a demoted node takes no answers.
//! - *The standby merges before it reads its role.* One thread merges and promotes, so nothing happens between; an
//!   answer that is sent after a promotion names the new reign, as above.

macro_rules! mutants {
    ($( $variant:ident = $name:literal, $text:literal; )+) => {
        /// A rule that is broken on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Mutant { $( #[doc = $text] $variant, )+ }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Mutant] = &[ $( Mutant::$variant, )+ ];

            /// Its name on a command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Mutant::$variant => $name, )+ }
            }

            /// What it does wrong.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $( Mutant::$variant => $text, )+ }
            }
        }
    };
}

mutants! {
    DeliverBeforeCommit = "deliver-before-commit", "inbound packets are delivered before the standby knows their number (F9)";
    FreshFromSent = "fresh-from-sent", "freshness runs from what the standby has sent, not from what was confirmed (F21)";
    VersionBeforeStrict = "version-before-strict", "v is taken before all workers handle strictly (F18)";
    StrictBeforeSealed = "strict-before-sealed", "strict is stored and said before v is sealed (F18)";
    LateSeal = "late-seal", "a late acknowledgement of an abandoned v makes strict (F18)";
    ClearBySending = "clear-by-sending", "a mark is cleared by sending its record (F18)";
    ControlNotInVersion = "control-not-in-version", "v is sealed without the position of the SSP stream (F18)";
    StrictWithoutIncarnation = "strict-without-incarnation", "strictness holds whatever incarnation it was agreed with, at both nodes (F18, F20)";
    DeliverAfterDemotion = "deliver-after-demotion", "parked frames are delivered after a demotion (F27)";
    FinalOnce = "final-once", "the loser sends its final state once (F28)";
    ReuseTerm = "reuse-term", "a restart without memory takes the last term again (F2)";
    BaseTermOfInstallation = "base-term-of-installation", "the base term of a static key is the term of its installation (F3)";
    CounterFromZero = "counter-from-zero", "the nonce counter starts at zero with every SA installed (F4)";
    LastWriterWins = "last-writer-wins", "a merge takes the last record instead of joining it (F28)";
    AcknowledgeWithoutVersion = "acknowledge-without-version", "an acknowledgement counts for the newest record (F18)";
    SkipStrictSince = "skip-strict-since", "the standby is synchronized when it has sealed (F18)";
    AloneBeforeDraining = "alone-before-draining", "the active node goes alone before it has drained its queues (F20)";
    InstallOverKnownKey = "install-over-known-key", "installing a known key makes its numbers start anew (F8)";
    TombstoneForgotten = "tombstone-forgotten", "a record of a removed SA is answered as one of an unknown SA (F19, F40)";
    LoserNotMerged = "loser-not-merged", "the winner goes on without the loser's final state (F28)";
    NoWitness = "no-witness", "a takeover without a witness (F25)";
    AloneShorterThanTakeover = "alone-shorter-than-takeover", "D_a is below D_b (F20)";
}

#[cfg(feature = "mutants")]
mod switch {
    use super::Mutant;
    use std::sync::atomic::{AtomicU8, Ordering};

    const NONE: u8 = u8::MAX;
    static CHOSEN: AtomicU8 = AtomicU8::new(NONE);

    /// Breaks this rule from now on, in the whole process.
    pub fn set(mutant: Option<Mutant>) {
        CHOSEN.store(mutant.map_or(NONE, |mutant| mutant as u8), Ordering::Relaxed);
    }

    /// Is this rule broken?
    #[must_use]
    pub fn is(mutant: Mutant) -> bool {
        CHOSEN.load(Ordering::Relaxed) == mutant as u8
    }
}

#[cfg(feature = "mutants")]
pub use switch::{is, set};

/// Is this rule broken? Never, in this build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn is(_: Mutant) -> bool {
    false
}
