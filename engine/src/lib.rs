//! Decisions: Event in, Change out. No I/O, no async, no clock.
