//! SYNs on existing connections: datapath.md 12, and how RST and FIN shorten a connection (14).

use super::cases;
use super::talk::{DATA, FIN, SYN_ACK, Talk, opened, talk};
use crate::abi::event;
use crate::abi::policy::direction::{EGRESS, INGRESS};
use crate::drop::DropReason;
use crate::host::world::{API, Sent, WEB, World};
use crate::host::{Case, Expected};
use crate::parse::tcp;

/// A connection that both ends have closed: 7 packets.
fn closed(case: Case, t: &Talk) -> Case {
    opened(case, t, &WEB, &API)
        .packet(Sent::from_pod(&WEB, t.out(FIN)), Expected::Pod(&API), &[("flags", 1), ("packets", 1)])
        .packet(Sent::from_pod(&API, t.back(FIN)), Expected::Pod(&WEB), &[("close", 1), ("packets", 1)])
}

cases! {
    /// 12: a retransmitted SYN passes while the connection opens; nothing is judged or reported again.
    fn dp12_retransmitted_syn(f) {
        let t = talk(f, WEB.place, API.place);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("opening", 1), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), Expected::Pod(&API), &[("packets", 1)])
            .packet(Sent::from_pod(&API, t.back(SYN_ACK)), Expected::Pod(&WEB), &[("flags", 1), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), Expected::Pod(&API), &[("packets", 1)])
    }

    /// 12: under a stale stamp a retransmitted SYN is judged as new.
    fn dp12_retransmitted_syn_under_a_stale_stamp(f) {
        let t = talk(f, WEB.place, API.place);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("opening", 1), ("packets", 1)])
            .change(|world| world.default_deny(&API, INGRESS, 90))
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
            // And what was opened under the old policy doesn't go on either: its next packet makes the tombstone.
            .packet(Sent::from_pod(&API, t.back(SYN_ACK)), DropReason::PolicyDenied,
                &[("rule 90", 1), ("drop 133", 1), ("dropped", 1), ("tombstones", 1)])
    }

    /// 12: a SYN from the initiator of a closed connection, in TIME_WAIT, starts the entry again.
    fn dp12_time_wait_reuse(f) {
        let t = talk(f, WEB.place, API.place);
        closed(Case::new(World::open()), &t)
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("tcp", -1), ("opening", 1), ("packets", -6)])
            .packet(Sent::from_pod(&API, t.back(SYN_ACK)), Expected::Pod(&WEB), &[("flags", 1), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.out(tcp::ACK)), Expected::Pod(&API),
                &[("packets", 1), ("opening", -1), ("tcp", 1)])
    }

    /// 12: data in the SYN is no exception.
    fn dp12_time_wait_reuse_with_data_in_the_syn(f) {
        let t = talk(f, WEB.place, API.place);
        closed(Case::new(World::open()), &t)
            .change(|world| world.default_deny(&API, INGRESS, 90))
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN).payload(*b"early data")), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 12: a SYN from the initiator of a connection that stands is judged as new, and the entry starts again.
    fn dp12_syn_on_an_open_connection(f) {
        let t = talk(f, WEB.place, API.place);
        opened(Case::new(World::open()), &t, &WEB, &API)
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("tcp", -1), ("opening", 1), ("packets", -4)])
    }

    /// 12: a refused connection (RST) opens no more: its next SYN is judged as new and starts the entry again.
    fn dp12_syn_after_a_refusal(f) {
        let t = talk(f, WEB.place, API.place);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("opening", 1), ("packets", 1)])
            .packet(Sent::from_pod(&API, t.back(tcp::RST | tcp::ACK)), Expected::Pod(&WEB),
                &[("close", 1), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("packets", -1)])
    }

    /// 12: a SYN from the responder is never a reply. Where its own direction is denied it drops, and what stands stays.
    fn dp12_syn_from_the_responder_denied(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.default_deny(&API, EGRESS, 95);
        opened(Case::new(world), &t, &WEB, &API)
            .packet(Sent::from_pod(&API, t.back(tcp::SYN)), DropReason::PolicyDenied,
                &[("rule 95", 1), ("drop 133", 1), ("dropped", 1)])
            .packet(Sent::from_pod(&WEB, t.out(DATA)), Expected::Pod(&API), &[("packets", 1)])
    }

    /// 12: allowed, it passes and changes nothing of a connection that stands.
    fn dp12_syn_from_the_responder_changes_nothing(f) {
        let t = talk(f, WEB.place, API.place);
        opened(Case::new(World::open()), &t, &WEB, &API)
            .packet(Sent::from_pod(&API, t.back(tcp::SYN)), Expected::Pod(&WEB), &[("rule 0", 2)])
            .packet(Sent::from_pod(&WEB, t.out(DATA)), Expected::Pod(&API), &[("packets", 1)])
            .packet(Sent::from_pod(&API, t.back(DATA)), Expected::Pod(&WEB), &[("packets", 1)])
    }

    /// 12: allowed, it replaces a closing connection, whose initiator it is from then on.
    fn dp12_syn_from_the_responder_replaces_a_closing_one(f) {
        let t = talk(f, WEB.place, API.place);
        closed(Case::new(World::open()), &t)
            .packet(Sent::from_pod(&API, t.back(tcp::SYN)), Expected::Pod(&WEB),
                &[("rule 0", 2), ("new", 1), ("tcp", -1), ("opening", 1), ("packets", -6)])
            .event(|record| assert_eq!(record.flags & event::flag::REPLY, 0, "a pure SYN is never a reply"))
            .packet(Sent::from_pod(&WEB, t.out(SYN_ACK)), Expected::Pod(&API), &[("flags", 1), ("packets", 1)])
            .event(|record| assert_eq!(record.flags & event::flag::REPLY, event::flag::REPLY))
    }

    /// 12: allowed, it replaces a denied connection.
    fn dp12_syn_from_the_responder_replaces_a_denied_one(f) {
        let t = talk(f, WEB.place, API.place);
        opened(Case::new(World::open()), &t, &WEB, &API)
            .change(|world| world.default_deny(&API, INGRESS, 90))
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1), ("tombstones", 1)])
            .packet(Sent::from_pod(&API, t.back(tcp::SYN)), Expected::Pod(&WEB),
                &[("rule 0", 2), ("new", 1), ("tcp", -1), ("opening", 1), ("tombstones", -1), ("packets", -4)])
    }

    /// 14: an RST shortens a connection's time, data that comes after restores it.
    fn dp14_rst_shortens_and_data_restores(f) {
        let t = talk(f, WEB.place, API.place);
        opened(Case::new(World::open()), &t, &WEB, &API)
            .packet(Sent::from_pod(&WEB, t.out(tcp::RST)), Expected::Pod(&API), &[("close", 1), ("packets", 1)])
            .age(8)
            .packet(Sent::from_pod(&API, t.back(DATA)), Expected::Pod(&WEB), &[("packets", 1), ("alive", 1)])
            .age(100)
            .packet(Sent::from_pod(&API, t.back(DATA)), Expected::Pod(&WEB), &[("packets", 1), ("alive", 1)])
            .packet(Sent::from_pod(&WEB, t.out(tcp::RST)), Expected::Pod(&API), &[("close", 1), ("packets", 1)])
            .age(12)
            .packet(Sent::from_pod(&WEB, t.out(DATA)), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("opening", 1), ("packets", 1)])
    }

    /// 14: half closed is not closed: the other end may send for as long as it likes.
    fn dp14_half_closed_goes_on(f) {
        let t = talk(f, WEB.place, API.place);
        opened(Case::new(World::open()), &t, &WEB, &API)
            .packet(Sent::from_pod(&WEB, t.out(FIN)), Expected::Pod(&API), &[("flags", 1), ("packets", 1)])
            .age(3600)
            .packet(Sent::from_pod(&API, t.back(DATA)), Expected::Pod(&WEB), &[("packets", 1), ("alive", 1)])
    }
}
