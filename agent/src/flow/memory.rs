//! What was looked up is remembered until it may have changed, so that a thousand flows of one pod share one name.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Values by what they were looked up with.
#[derive(Debug)]
pub(super) struct Memory<K, V> {
    known: HashMap<K, (u64, Arc<V>)>,
    turn: u64,
    most: usize,
}

impl<K: Hash + Eq, V: PartialEq> Memory<K, V> {
    /// Remembers at most so many; when one more comes, all are forgotten.
    pub(super) fn new(most: usize) -> Self {
        Self { known: HashMap::new(), turn: 0, most }
    }

    /// From now on everything is looked up again. What turns out to be the same stays shared.
    pub(super) fn doubt(&mut self) {
        self.turn += 1;
    }

    /// The value of a key.
    pub(super) fn get(&mut self, key: K, look_up: impl FnOnce(&K) -> V) -> Arc<V> {
        if let Some((turn, value)) = self.known.get_mut(&key) {
            if *turn != self.turn {
                let now = look_up(&key);
                if **value != now {
                    *value = Arc::new(now);
                }
                *turn = self.turn;
            }
            return Arc::clone(value);
        }
        if self.known.len() >= self.most {
            self.known.clear();
        }
        let value = Arc::new(look_up(&key));
        self.known.insert(key, (self.turn, Arc::clone(&value)));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_looked_up_once_a_turn_and_shared_while_it_is_the_same() {
        let mut memory = Memory::new(10);
        let first = memory.get("a", |_| 1);
        let again = memory.get("a", |_| panic!("it is known"));
        assert!(Arc::ptr_eq(&first, &again));
        memory.doubt();
        let same = memory.get("a", |_| 1);
        assert!(Arc::ptr_eq(&first, &same), "looked up again and found the same");
        memory.doubt();
        assert_eq!((*memory.get("a", |_| 2), *first), (2, 1), "whoever has the old one keeps it");
    }

    #[test]
    fn it_does_not_grow_beyond_its_bound() {
        let mut memory = Memory::new(3);
        for number in 0..100 {
            assert_eq!(*memory.get(number, |number| number * 2), number * 2);
            assert!(memory.known.len() <= 3);
        }
    }
}
