//! Typed shared memory: hot SA state, statistics, publish-and-retire.
