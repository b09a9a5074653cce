//! A part of the engine that its copies share until one of them writes it.
//!
//! An explanation works on a copy of the engine, which then costs some references and the parts that the question
//! changes; the engine that the agent holds writes in place, since nobody shares with it by then.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A value that is copied when it is written while somebody shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_is_written_leaves_the_other_as_it_was() {
        let mut one = Shared::new(vec![1]);
        one.push(2);
        let mut other = one.clone();
        assert_eq!(one.as_ptr(), other.as_ptr(), "shared while nobody writes");
        other.push(3);
        assert_eq!((one.as_slice(), other.as_slice()), (&[1, 2][..], &[1, 2, 3][..]));
        drop(other);
        let alone = one.as_ptr();
        one[0] = 7;
        assert_eq!(one.as_ptr(), alone, "written in place");
    }
}
