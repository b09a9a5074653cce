//! The engine as a whole, over the kernel's verdict code.

mod events;
mod explained;
mod kernel;
mod naive;
mod node;
mod random;
mod scenes;
