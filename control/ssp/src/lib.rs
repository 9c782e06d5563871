//! SSP, the state synchronization protocol between the two control processes, without I/O.
