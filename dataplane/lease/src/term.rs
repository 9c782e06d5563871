//! Which terms belong to which node (`failover.md` F1).

/// Number of a node in its pair: the parity of its terms. A gateway without a partner is node 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeNumber {
    /// Even terms: 2, 4, 6, ...
    Zero,
    /// Odd terms: 1, 3, 5, ...
    One,
}

impl NodeNumber {
    /// 0 or 1.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            NodeNumber::Zero => 0,
            NodeNumber::One => 1,
        }
    }

    /// The node of that number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(NodeNumber::Zero),
            1 => Some(NodeNumber::One),
            _ => None,
        }
    }

    /// The number of the node with this public key in its pair with another (F1): the lower key is node 0.
    /// `None` where the keys are equal, as they are where a state directory was copied.
    #[must_use]
    pub fn of_keys(own: &[u8; 32], partner: &[u8; 32]) -> Option<Self> {
        match own.cmp(partner) {
            std::cmp::Ordering::Less => Some(NodeNumber::Zero),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(NodeNumber::One),
        }
    }

    /// Is it a term of this node? 0 is none of either: it means that no term was taken.
    #[must_use]
    pub const fn owns(self, term: u64) -> bool {
        term != 0 && term % 2 == self.number() as u64
    }

    /// The first term of this node above `term`, of either parity.
    ///
    /// # Errors
    /// [`TermError::Exhausted`] at the end of 64 bits.
    pub const fn next_above(self, term: u64) -> Result<u64, TermError> {
        // The difference is 1 where the parity changes, else 2; node 0 starts at 2 and node 1 at 1.
        let step = if term % 2 == self.number() as u64 { 2 } else { 1 };
        match term.checked_add(step) {
            Some(next) => Ok(next),
            None => Err(TermError::Exhausted),
        }
    }
}

/// Why no term can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TermError {
    /// No term is left in 64 bits.
    #[error("no term is left: make a new node key and term file, and give every static SA a new key")]
    Exhausted,
    /// None is reserved, so none can be taken without writing (F2).
    #[error("no reserved term is left: the term file could not be written for too long")]
    NotReserved,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_term_of_node_0_is_2_and_of_node_1_is_1() {
        assert_eq!(NodeNumber::Zero.next_above(0), Ok(2));
        assert_eq!(NodeNumber::One.next_above(0), Ok(1));
    }

    #[test]
    fn the_next_term_is_the_lowest_own_one_above_any_other() {
        for node in [NodeNumber::Zero, NodeNumber::One] {
            for term in 0..100 {
                let next = node.next_above(term).unwrap();
                let lowest = (term + 1..).find(|candidate| node.owns(*candidate)).unwrap();
                assert_eq!(next, lowest, "{node:?} above {term}");
            }
        }
    }

    #[test]
    fn the_lower_key_is_node_0_and_a_copied_key_is_no_pair() {
        let (low, high) = ([1; 32], [2; 32]);
        assert_eq!(NodeNumber::of_keys(&low, &high), Some(NodeNumber::Zero));
        assert_eq!(NodeNumber::of_keys(&high, &low), Some(NodeNumber::One));
        assert_eq!(NodeNumber::of_keys(&low, &low), None);
    }

    #[test]
    fn terms_end_and_do_not_wrap() {
        assert_eq!(NodeNumber::Zero.next_above(u64::MAX - 1), Err(TermError::Exhausted));
        assert_eq!(NodeNumber::One.next_above(u64::MAX), Err(TermError::Exhausted));
        assert_eq!(NodeNumber::Zero.next_above(u64::MAX), Err(TermError::Exhausted));
    }
}
