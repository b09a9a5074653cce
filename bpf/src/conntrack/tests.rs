//! Two CPUs at once (16): what one packet finds when another has been faster. Everything else about connections is in
//! `host/cases`.

use core::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::abi::{Address, EndpointEntry, EventRecord, IpcacheEntry, PolicyEntry, PolicyKey, StateWord};
use crate::deliver::Action;
use crate::drop::DropReason;
use crate::hooks::{Frame, from_pod::from_pod};
use crate::host::world::{API, Family, Pod, Sent, WEB, World};
use crate::host::{Build, HostMaps, Transport};
use crate::maps::{FragmentKey, FragmentPorts, Urgency};

/// Maps in which another CPU does something before a lookup of a connection, by the number of the lookup; the answer is
/// whether the lookup sees anything.
struct Racing {
    maps: HostMaps,
    looked: Cell<u32>,
    before: fn(&HostMaps, u32) -> bool,
}

impl Racing {
    fn new(maps: HostMaps, before: fn(&HostMaps, u32) -> bool) -> Self {
        Self { maps, looked: Cell::new(0), before }
    }
}

impl Maps for Racing {
    type Conntrack = Rc<CtEntry>;

    fn word(&self, index: u32) -> StateWord {
        self.maps.word(index)
    }

    fn endpoint_by_interface(&self, ifindex: u32) -> Option<&EndpointEntry> {
        self.maps.endpoint_by_interface(ifindex)
    }

    fn endpoint_by_address(&self, address: &Address) -> Option<&EndpointEntry> {
        self.maps.endpoint_by_address(address)
    }

    fn ipcache(&self, address: &Address) -> Option<&IpcacheEntry> {
        Maps::ipcache(&self.maps, address)
    }

    fn range(&self, address: &Address) -> Option<&IpcacheEntry> {
        self.maps.range(address)
    }

    fn class(&self, address: &Address) -> u32 {
        self.maps.class(address)
    }

    fn known(&self, identity: u32) -> bool {
        Maps::known(&self.maps, identity)
    }

    fn policy(&self, slot: u32, key: &PolicyKey) -> Option<&PolicyEntry> {
        Maps::policy(&self.maps, slot, key)
    }

    fn conntrack(&self, table: CtTable, key: &CtKey) -> Option<Rc<CtEntry>> {
        self.looked.set(self.looked.get() + 1);
        if (self.before)(&self.maps, self.looked.get()) { self.maps.conntrack(table, key) } else { None }
    }

    fn conntrack_create(&self, table: CtTable, key: &CtKey, fill: impl FnOnce(&mut CtEntry)) -> bool {
        self.maps.conntrack_create(table, key, fill)
    }

    fn conntrack_write(
        &self,
        table: CtTable,
        key: &CtKey,
        from: Option<&CtEntry>,
        fill: impl FnOnce(&mut CtEntry) -> bool,
    ) -> bool {
        self.maps.conntrack_write(table, key, from, fill)
    }

    fn conntrack_delete(&self, table: CtTable, key: &CtKey) {
        self.maps.conntrack_delete(table, key);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.maps.fragment(key)
    }

    fn fragment_write(&self, key: &FragmentKey, ports: &FragmentPorts) {
        self.maps.fragment_write(key, ports);
    }

    fn count_rule(&self, cookie: u32, bytes: u32, now: u64) {
        self.maps.count_rule(cookie, bytes, now);
    }

    fn count_drop(&self, reason: u16, bytes: u32) {
        self.maps.count_drop(reason, bytes);
    }

    fn may_answer(&self, now: u64) -> bool {
        self.maps.may_answer(now)
    }

    fn may_report_drop(&self, now: u64, interval: u32) -> bool {
        self.maps.may_report_drop(now, interval)
    }

    fn emit(&self, urgency: Urgency, fill: impl FnOnce(&mut EventRecord)) {
        self.maps.emit(urgency, fill);
    }
}

/// A datagram of a connection that another CPU has just created, and that `change` then did something to.
fn second(family: Family, change: impl Fn(&mut CtEntry)) -> (Result<Action, Dropped>, CtEntry, usize) {
    let world = World::open();
    let transport = Transport::Udp { source: 40_000, destination: 53 };
    let sent = Sent::from_pod(
        &WEB,
        Build::new(WEB.place.ip(family), API.place.ip(family), transport).payload(*b"query"),
    );
    assert!(world.send(&sent).0.is_ok());
    for entry in world.maps.connections.borrow_mut().values_mut() {
        let mut changed = (**entry).clone();
        change(&mut changed);
        *entry = Rc::new(changed);
    }
    world.maps.take_events();
    let maps = Racing::new(world.maps.clone(), |_, look| look > 1);
    let (mut packet, mut frame) = (sent.packet.clone(), Frame::default());
    let now = world.now + 1000;
    let result = from_pod(&maps, &mut packet, &world.settings, now, &mut frame);
    let events = maps.maps.take_events().len();
    let connections = maps.maps.connections.borrow();
    assert_eq!(connections.len(), 1);
    let entry = connections.values().next().map(|entry| (**entry).clone()).unwrap();
    (result, entry, events)
}

#[test]
fn dp16_the_entry_that_came_first_is_used() {
    for family in Family::BOTH {
        let start = World::open().now;
        let (result, entry, events) = second(family, |_| {});
        assert_eq!(result, Ok(Action::Endpoint { ifindex: API.ifindex }));
        assert_eq!(entry.created, start, "it is not overwritten");
        assert_eq!(
            entry.halves.each_ref().map(|half| half.packets.get()).iter().sum::<u64>(),
            2,
            "and counts both"
        );
        assert_eq!(events, 0, "the other CPU has reported it");
    }
}

#[test]
fn dp16_the_tombstone_that_came_first_holds() {
    for family in Family::BOTH {
        let (result, entry, events) = second(family, |entry| {
            entry.verdict = verdict::DENY;
            entry.reason = DropReason::DeniedByRule as u16;
        });
        assert_eq!(result.unwrap_err().reason(), Some(DropReason::DeniedByRule));
        assert_eq!(entry.verdict, verdict::DENY);
        assert_eq!(events, 1, "the drop");
    }
}

/// A packet of a connection that other packets opened; before the lookup with a number the connection is evicted.
fn evicted(opening: &[Sent], last: &Sent, rejudged: bool, before: fn(&HostMaps, u32) -> bool) -> usize {
    let mut world = World::open();
    for sent in opening {
        assert!(world.send(sent).0.is_ok());
    }
    if rejudged {
        world.raise_epoch(&API);
    }
    let maps = Racing::new(world.maps.clone(), before);
    let (mut packet, mut frame) = (last.packet.clone(), Frame::default());
    let result = from_pod(&maps, &mut packet, &world.settings, world.now, &mut frame);
    assert!(result.is_ok(), "policy allows it: {result:?}");
    maps.maps.connections.borrow().len()
}

/// The table may give an element to another connection between the lookup and the copy: what is not under its key any more
/// is not written back under it.
#[test]
fn dp16_a_connection_that_has_gone_is_not_written() {
    for family in Family::BOTH {
        let build = |from: &Pod, to: &Pod, transport| {
            Sent::from_pod(from, Build::new(from.place.ip(family), to.place.ip(family), transport))
        };
        let udp = build(&WEB, &API, Transport::Udp { source: 40_000, destination: 53 });
        let gone = |maps: &HostMaps, look: u32| {
            if look == 2 {
                maps.connections.borrow_mut().clear();
            }
            true
        };
        assert_eq!(evicted(core::slice::from_ref(&udp), &udp, true, |_, _| true), 1, "judged again it stays");
        assert_eq!(evicted(core::slice::from_ref(&udp), &udp, true, gone), 0, "judged again");
        let tcp = |flags| Transport::Tcp { source: 40_000, destination: 80, flags };
        let answer = Transport::Tcp { source: 80, destination: 40_000, flags: tcp::SYN | tcp::ACK };
        let opening = [build(&WEB, &API, tcp(tcp::SYN)), build(&API, &WEB, answer)];
        let third = build(&WEB, &API, tcp(tcp::ACK));
        let gone = |maps: &HostMaps, look: u32| {
            if look == 3 {
                maps.connections.borrow_mut().clear();
            }
            true
        };
        assert_eq!(evicted(&opening, &third, false, |_, _| true), 1, "it moves to its table");
        assert_eq!(evicted(&opening, &third, false, gone), 0, "on its way to its table");
    }
}

/// 6, 8: what the agent shows as the rest of a connection's life agrees with when it is absent.
#[test]
fn dp08_what_remains_ends_where_it_expires() {
    let entry = CtEntry { created: 1_000, verdict: verdict::ALLOW, ..CtEntry::default() };
    for (table, transport, life) in [
        (CtTable::Any, protocol::UDP, timeout::ANY),
        (CtTable::Any, protocol::ICMPV6, timeout::ICMP),
        (CtTable::TcpOpening, protocol::TCP, timeout::TCP_OPENING),
        (CtTable::Tcp, protocol::TCP, timeout::TCP),
    ] {
        let end = 1_000 + life;
        assert!(!is_expired(&entry, table, transport, end));
        assert_eq!(remaining(&entry, table, transport, end), 0);
        assert!(is_expired(&entry, table, transport, end + 1));
        assert_eq!(remaining(&entry, table, transport, end + 1), -1);
    }
}
