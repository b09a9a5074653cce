//! The engine as a whole, over the kernel's verdict code.

mod events;
mod explained;
mod foot_guns;
mod full;
mod kernel;
mod naive;
mod node;
mod random;
mod scale;
mod scenes;
