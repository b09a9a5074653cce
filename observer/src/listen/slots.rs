//! Places that are counted by client address, so that one client leaves some to the others.
//!
//! Neighbours: `super` counts connections, [`crate::service`] the streams on them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a request came from, among its extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client(pub(crate) IpAddr);

/// Places for connections, or for streams.
#[derive(Clone)]
pub(crate) struct Slots {
    taken: Arc<Mutex<Taken>>,
    all: usize,
    per_address: usize,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_address: BTreeMap<Option<IpAddr>, usize>,
}

/// One taken place; free again when dropped.
pub(crate) struct Slot {
    slots: Slots,
    address: Option<IpAddr>,
}

impl Slots {
    pub(crate) fn new(all: usize, per_address: usize) -> Self {
        Self { taken: Arc::default(), all, per_address }
    }

    /// A place for that address, if there is one. A client without an address came through a socket of this machine, which
    /// only its owner can open, and may take all that are free.
    pub(crate) fn take(&self, address: Option<IpAddr>) -> Option<Slot> {
        let address = address.map(payer);
        let mut taken = self.lock();
        let own = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.all >= self.all || (address.is_some() && own >= self.per_address) {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, own + 1);
        Some(Slot { slots: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// The address that is counted: of IPv6 the /64, since a host can choose from a whole one.
fn payer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_who_takes_them() {
        let slots = Slots::new(5, 2);
        let address = |text: &str| -> Option<IpAddr> { Some(text.parse().expect("an address")) };
        let one = slots.take(address("192.0.2.1")).expect("a place");
        let _two = slots.take(address("::ffff:192.0.2.1")).expect("the same host");
        assert!(slots.take(address("192.0.2.1")).is_none(), "its share is taken");
        let _three = slots.take(address("2001:db8::1")).expect("another host");
        let _four = slots.take(address("2001:db8::ffff:2")).expect("the same /64");
        assert!(slots.take(address("2001:db8::3")).is_none(), "its share is taken");
        let _five = slots.take(address("2001:db8:1::3")).expect("another /64");
        assert!(slots.take(address("192.0.2.9")).is_none(), "all places are taken");
        drop(one);
        assert!(slots.take(address("192.0.2.9")).is_some(), "a closed connection frees its place");
        let local = slots.take(None).expect("a place");
        assert!(slots.take(None).is_none(), "all places are taken");
        drop(local);
        assert_eq!(slots.lock().by_address.len(), 3, "nobody is remembered who has none");
    }
}
