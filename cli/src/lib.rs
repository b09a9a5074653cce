//! The sinew command.
