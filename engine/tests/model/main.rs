//! The engine as a whole, over the kernel's verdict code.

mod kernel;
mod node;
mod scenes;
